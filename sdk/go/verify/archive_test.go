package verify_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// archiveOf packs leaves 3, 5 and 12 of a log.
func archiveOf(t testing.TB, l *testLog) []byte {
	t.Helper()
	var out bytes.Buffer
	w := verify.NewArchiveWriter(&out, testTime, time.Time{})
	for _, index := range []int64{3, 5, 12} {
		if err := w.Add(encode(t, l.pack(t, index, 40))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// leavesLog has an attempt in every leaf.
func leavesLog(t testing.TB) *testLog {
	l := newLog(testOrigin, 1)
	for i := range 40 {
		l.add(t, marshal(t, &leafv1.Leaf{Nonce: filled(16, byte(i)), Kind: &leafv1.Leaf_Attempt{Attempt: testAttempt()}}))
	}
	return l
}

// repack changes the files of an archive; change returns nil to leave one out.
func repack(t testing.TB, archive []byte, change func(name string, data []byte) (string, []byte)) []byte {
	t.Helper()
	return pack(t, rewrite(t, unpack(t, archive), change))
}

func unpack(t testing.TB, archive []byte) []byte {
	t.Helper()
	unpacked, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	files, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func pack(t testing.TB, files []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	packed := gzip.NewWriter(&out)
	_, err := packed.Write(files)
	if err := errors.Join(err, packed.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// rewrite is repack without the compression.
func rewrite(t testing.TB, files []byte, change func(name string, data []byte) (string, []byte)) []byte {
	t.Helper()
	var out bytes.Buffer
	r, w := tar.NewReader(bytes.NewReader(files)), tar.NewWriter(&out)
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, _ := io.ReadAll(r)
		if header.Name, data = change(header.Name, data); data == nil {
			continue
		}
		header.Size = int64(len(data))
		if err := w.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write(data)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestArchive(t *testing.T) {
	l := leavesLog(t)
	var names []string
	report, err := verify.VerifyArchive(bytes.NewReader(archiveOf(t, l)), trust(l), func(name string, _ *verify.Report) error {
		names = append(names, name)
		return nil
	})
	if err != nil || !report.Full || report.Packages != 3 || report.Succeeded != 3 || report.Manifest.TreeSize != 40 || report.Manifest.From != "2026-03-04T05:06:07Z" || !report.HeadTime.Equal(testTime) {
		t.Errorf("got %+v, %v", report, err)
	}
	if strings.Join(names, " ") != "proofs/0000000000000003.proof.json proofs/0000000000000005.proof.json proofs/0000000000000012.proof.json" {
		t.Errorf("names %q", names)
	}
	var text strings.Builder
	if err := report.WriteText(&text); err != nil || !strings.HasPrefix(text.String(), "FULL PROOF of 3 records") {
		t.Errorf("%v: %s", err, text.String())
	}
	if report, err := verify.VerifyArchive(bytes.NewReader(archiveOf(t, l)), verify.Options{}, nil); err != nil || report.Full {
		t.Errorf("without a key: %+v, %v", report, err)
	}
}

func TestArchiveThatIsRefused(t *testing.T) {
	l := leavesLog(t)
	whole := archiveOf(t, l)
	other := leavesLog(t)
	other.fill(t, 41)
	only := func(name string, change func([]byte) []byte) func(string, []byte) (string, []byte) {
		return func(at string, data []byte) (string, []byte) {
			if strings.Contains(at, name) {
				data = change(data)
			}
			return at, data
		}
	}
	for _, c := range []struct {
		name    string
		archive []byte
		reason  string
	}{
		{"cut short", whole[:len(whole)-200], "breaks off"},
		{"without its manifest", repack(t, whole, only("manifest", func([]byte) []byte { return nil })), "no manifest"},
		{"a package left out", repack(t, whole, only("0005", func([]byte) []byte { return nil })), "counts 3 packages, and there are 2"},
		{"a manifest of another log", repack(t, whole, only("manifest", func(d []byte) []byte { return bytes.Replace(d, []byte("example.com"), []byte("example.org"), 1) })), "says log"},
		{"a manifest of a larger tree", repack(t, whole, only("manifest", func(d []byte) []byte { return bytes.Replace(d, []byte(": 40"), []byte(": 41"), 1) })), "and 41 leaves"},
		{"a package changed", repack(t, whole, only("0005", func(d []byte) []byte { return bytes.Replace(d, []byte("github"), []byte("gitlab"), 1) })), "0000000000000005"},
		{"a package under another name", repack(t, whole, func(at string, d []byte) (string, []byte) { return strings.Replace(at, "0005", "0006", 1), d }), "is of leaf 5"},
		{"a package twice", repack(t, whole, only("0012", func([]byte) []byte { return encode(t, l.pack(t, 5, 40)) })), "is of leaf 5"},
		{"another head", repack(t, whole, only("0012", func([]byte) []byte { return encode(t, other.pack(t, 12, 41)) })), "another head"},
		{"a huge file", repack(t, whole, only("0005", func([]byte) []byte { return make([]byte, verify.MaxPackageBytes+1) })), "more than"},
		{"a stranger's file", repack(t, whole, func(at string, d []byte) (string, []byte) { return strings.Replace(at, "proofs/0", "../0", 1), d }), "is of leaf"},
		{"another sum", slices.Concat(whole[:len(whole)-8], []byte{^whole[len(whole)-8]}, whole[len(whole)-7:]), "breaks off"},
		{"another length", slices.Concat(whole[:len(whole)-1], []byte{1}), "breaks off"},
		{"more behind it", append(bytes.Clone(whole), "more"...), "breaks off"},
		{"no archive", []byte("{}"), "not a compressed archive"},
		{"nothing", nil, "not a compressed archive"},
	} {
		report, err := verify.VerifyArchive(bytes.NewReader(c.archive), trust(l), nil)
		var refused *verify.Error
		if !errors.As(err, &refused) || !strings.Contains(refused.Error(), c.reason) || report != nil && report.Full {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func TestTlogProof(t *testing.T) {
	l := attemptLog(t)
	witness := newLog("witness.example.org/w", 9)
	p := l.pack(t, 12, 40)
	p.Checkpoint = l.checkpoint(t, 40, witness.cosigner())
	file, err := p.TlogProof()
	if err != nil {
		t.Fatal(err)
	}
	compare(t, "testdata/attempt.tlog-proof", file)
	report, err := verify.VerifyTlogProof(file, nil, trust(l))
	if err != nil || !report.Full || report.Leaf.GetAttempt().GetUrl() != testAttempt().Url || !report.HeadTime.Equal(testTime) {
		t.Errorf("got %+v, %v", report, err)
	}
	if err := report.WriteText(io.Discard); err != nil {
		t.Error(err)
	}
	bare := bytes.Join(append(bytes.SplitN(file, []byte("\n"), 3)[:1], bytes.SplitN(file, []byte("\n"), 3)[2]), []byte("\n"))
	if _, err := verify.VerifyTlogProof(bare, nil, trust(l)); err == nil {
		t.Error("took a file without a leaf")
	}
	if report, err := verify.VerifyTlogProof(bare, l.leaves[12], trust(l)); err != nil || !report.Full {
		t.Errorf("with the leaf beside it: %v", err)
	}
	if _, err := verify.VerifyTlogProof(bare, l.leaves[11], trust(l)); err == nil {
		t.Error("took another leaf")
	}
	// Lines of keys that nobody trusts are no part of the statement; all that is before them is, and the log's signature.
	signed := bytes.LastIndex(file, []byte("— log.example.com"))
	for i := range signed {
		changed := bytes.Clone(file)
		changed[i] ^= 1
		if report, err := verify.VerifyTlogProof(changed, nil, trust(l)); err == nil {
			t.Fatalf("byte %d may be changed: %+v", i, report)
		}
	}
	for i := range signed {
		for _, more := range []string{"\r", "\n", "=", " "} {
			changed := slices.Concat(file[:i], []byte(more), file[i:])
			if report, err := verify.VerifyTlogProof(changed, nil, trust(l)); err == nil {
				t.Fatalf("%q may be put in at byte %d: %+v", more, i, report)
			}
		}
	}
	if _, err := verify.VerifyTlogProof(file, nil, verify.Options{}); err == nil {
		t.Error("took a file without a trusted key")
	}
}

func FuzzTlogProof(f *testing.F) {
	l := attemptLog(f)
	file, err := l.pack(f, 12, 40).TlogProof()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file, []byte(nil))
	f.Add([]byte("c2sp.org/tlog-proof@v1\nindex 0\n\n"), []byte("leaf"))
	f.Fuzz(func(t *testing.T, data, leaf []byte) {
		report, err := verify.VerifyTlogProof(data, leaf, trust(l))
		if err == nil && (!report.Full || report.Package.LeafIndex >= int64(len(l.leaves)) || !strings.HasPrefix(report.Package.Checkpoint, l.text(t, 40))) {
			t.Fatalf("took %q", data)
		}
	})
}

func FuzzArchive(f *testing.F) {
	l := leavesLog(f)
	whole := archiveOf(f, l)
	f.Add(whole)
	f.Add(whole[:50])
	f.Fuzz(func(t *testing.T, data []byte) {
		report, err := verify.VerifyArchive(bytes.NewReader(data), trust(l), nil)
		if err != nil && report != nil && report.Full {
			t.Fatalf("refused with %v, and full", err)
		}
	})
}

func TestErasureIsDescribed(t *testing.T) {
	l := newLog(testOrigin, 1)
	l.fill(t, 3)
	l.add(t, marshal(t, &leafv1.Leaf{Nonce: filled(16, 1), Kind: &leafv1.Leaf_Erasure{Erasure: testErasure()}}))
	report, err := verify.Verify(encode(t, l.pack(t, 3, 4)), trust(l))
	if err != nil || !report.Full {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := report.WriteText(&text); err != nil || !strings.Contains(text.String(), "Erasure of an event, and with it of the bytes of 2 leaves") {
		t.Errorf("%v: %s", err, text.String())
	}
}
