package verify_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

const blockBytes = 512

// testdata/archives.json has archives, written as what is changed in testdata/archive.tar, which is to be compressed then, and what
// comes of each. They are those of which every verifier must think the same.
func TestSharedArchives(t *testing.T) {
	l := leavesLog(t)
	base := unpack(t, archiveOf(t, l))
	compare(t, "testdata/archive.tar", base)
	files := archiveFiles(t, l, base)
	var cases []sharedCase
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for _, trusted := range [][]string{trust(l).TrustedKeys, {}} {
			c := difference(base, files[name])
			c.Name, c.Trusted, c.Level = name, trusted, verify.LevelConsistent
			report, err := verify.VerifyArchive(bytes.NewReader(pack(t, files[name])), verify.Options{TrustedKeys: trusted}, nil)
			if refused := (*verify.Error)(nil); errors.As(err, &refused) {
				c.Level, c.Check = verify.LevelRefused, refused.Check
			} else if err != nil {
				t.Fatal(err)
			} else if report.Full {
				c.Level = verify.LevelFull
			}
			cases = append(cases, c)
		}
	}
	compareJSON(t, "testdata/archives.json", cases)
}

func archiveFiles(t *testing.T, l *testLog, base []byte) map[string][]byte {
	other := leavesLog(t)
	other.fill(t, 41)
	at := bytes.Index(base, []byte("proofs/0000000000000005")) // the second file's header
	manifest := bytes.Index(base, []byte("manifest.json"))
	files := map[string][]byte{
		"nothing changed":               base,
		"nothing":                       {},
		"only the end":                  make([]byte, 2*blockBytes),
		"without its end":               bytes.TrimRight(base, "\x00"),
		"without the end":               base[:len(base)-2*blockBytes],
		"half of the end":               base[:len(base)-blockBytes],
		"half of a block":               base[:at+blockBytes/2],
		"half of a file":                base[:at+2*blockBytes],
		"more after its end":            append(bytes.Clone(base), "more"...),
		"a block after half of the end": slices.Concat(base[:len(base)-blockBytes], bytes.Repeat([]byte{1}, blockBytes)),
		"a file after the manifest":     slices.Concat(base[:len(base)-2*blockBytes], base[at:manifest], make([]byte, 2*blockBytes)),
		"two manifests":                 slices.Concat(base[:manifest], base[manifest:len(base)-2*blockBytes], base[manifest:]),
	}
	for name, change := range map[string]func(name string, data []byte) []byte{
		"without its manifest": func(name string, data []byte) []byte { return unless(name == "manifest.json", data) },
		"a package left out":   func(name string, data []byte) []byte { return unless(strings.Contains(name, "0005"), data) },
		"a package changed": func(name string, data []byte) []byte {
			return bytes.Replace(data, []byte(`"number": 2`), []byte(`"number": 3`), 1)
		},
		"another head": func(name string, data []byte) []byte {
			if strings.Contains(name, "0012") {
				return encode(t, other.pack(t, 12, 41))
			}
			return data
		},
		"a manifest that is none":     inManifest("{", "["),
		"a manifest of another form":  inManifest("kapsel-proofs/v1", "kapsel-proofs/v2"),
		"a manifest of another log":   inManifest("example.com", "example.org"),
		"a manifest of another tree":  inManifest(": 40", ": 41"),
		"a manifest of more packages": inManifest(": 3", ": 4"),
	} {
		files[name] = rewrite(t, base, func(name string, data []byte) (string, []byte) { return name, change(name, data) })
	}
	files["no packages"] = rewrite(t, base, func(name string, data []byte) (string, []byte) {
		if name != "manifest.json" {
			return name, nil
		}
		return name, []byte(`{"format":"kapsel-proofs/v1","origin":"","tree_size":0,"packages":0}`)
	})
	for name, to := range map[string]string{"another leaf's name": "proofs/0000000000000006", "a name of elsewhere": "../../0000000000000005", "an absolute name": "/roofs/0000000000000005"} {
		files[name] = rewrite(t, base, func(name string, data []byte) (string, []byte) {
			return strings.Replace(name, "proofs/0000000000000005", to, 1), data
		})
	}
	header := func(name string, offset int, value string) {
		changed := bytes.Clone(base)
		copy(changed[at+offset:], value)
		sum := 0
		copy(changed[at+148:], "        ")
		for _, b := range changed[at : at+blockBytes] {
			sum += int(b)
		}
		copy(changed[at+148:], fmt.Sprintf("%06o\x00 ", sum))
		files["header: "+name] = changed
	}
	header("as it was", 124, "")
	header("a huge file", 124, fmt.Sprintf("%011o\x00", verify.MaxPackageBytes+1))
	header("an empty file", 124, fmt.Sprintf("%011o\x00", 0))
	header("a size that is no number", 124, "0000000008x\x00")
	for _, kind := range []byte{tar.TypeLink, tar.TypeSymlink, tar.TypeDir, tar.TypeFifo, tar.TypeXHeader, tar.TypeXGlobalHeader, tar.TypeGNULongName, tar.TypeGNUSparse} {
		header(fmt.Sprintf("of type %q", kind), 156, string(kind))
	}
	header("a size in base 256", 124, "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0b\xd2")
	header("another mode", 100, "0000600")
	header("a mode that is no number", 100, "rw-r--r")
	header("an owner", 108, "0000001")
	header("a time", 136, "00000000001")
	header("a link's target", 157, "x")
	header("an owner's name", 265, "\xff")
	header("another magic", 257, "ustar  \x00")
	header("no magic", 257, "\x00\x00\x00\x00\x00\x00\x00\x00")
	header("a prefix", 345, "proofs")
	padded := bytes.Clone(base)
	padded[manifest-1] = 1
	files["a byte between two files"] = padded
	sum := bytes.Clone(base)
	sum[at+100] ^= 1
	files["header: another checksum"] = sum
	return files
}

func unless(left bool, data []byte) []byte {
	if left {
		return nil
	}
	return data
}

func inManifest(old, new string) func(string, []byte) []byte {
	return func(name string, data []byte) []byte {
		if name == "manifest.json" {
			return bytes.Replace(data, []byte(old), []byte(new), 1)
		}
		return data
	}
}
