package checkpoint

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

const origin = "log.example.com/l/1"

func testKey(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// The sample checkpoint of C2SP tlog-checkpoint.
const sample = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"

func TestParseReadsTheSpecificationsSample(t *testing.T) {
	c, err := Parse(sample)
	if err != nil {
		t.Fatal(err)
	}
	if c.Origin != "example.com/behind-the-sofa" || c.Size != 20852163 || c.Text() != sample {
		t.Errorf("got %+v, text %q", c, c.Text())
	}
	if extended, err := Parse(sample + "extension\n"); err != nil || extended != c {
		t.Errorf("with an extension line: got %+v, %v", extended, err)
	}
}

func TestParseRefusesMalformedCheckpoints(t *testing.T) {
	root := base64.StdEncoding.EncodeToString(merkle.EmptyRoot[:])
	for _, text := range []string{
		"", "a\n", "a\n1\n", "a\n1\n" + root, "\n1\n" + root + "\n", "a\n01\n" + root + "\n", "a\n-1\n" + root + "\n", "a\n+1\n" + root + "\n",
		"a\n9223372036854775808\n" + root + "\n", "a\n1\n" + root[:40] + "\n", "a\n1\n" + root + root + "\n", "a\n \n" + root + "\n",
		"a\n1\n" + strings.TrimRight(root, "=") + "\n",
	} {
		if c, err := Parse(text); err == nil {
			t.Errorf("%q was read as %+v", text, c)
		}
	}
}

func TestSignedCheckpointHasBothLines(t *testing.T) {
	key, at := testKey(1), time.Unix(1_800_000_000, 999)
	c := Checkpoint{Origin: origin, Size: 42, Root: merkle.LeafHash([]byte("root"))}
	signed, err := Sign(c, at, key)
	if err != nil {
		t.Fatal(err)
	}
	got, signedAt, err := Open(signed, origin, public(testKey(2)), public(key))
	if err != nil || got != c || !signedAt.Equal(at.Truncate(time.Second)) {
		t.Fatalf("got %+v at %v, %v, want %+v at %v", got, signedAt, err, c, at)
	}

	// An ordinary verifier of signed notes knows the key by its text.
	text, err := VerifierKey(origin, public(key))
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(text)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := note.Open([]byte(signed), note.VerifierList(verifier))
	if err != nil || len(opened.Sigs) != 1 || len(opened.UnverifiedSigs) != 1 {
		t.Fatalf("opened as an ordinary note: %+v, %v", opened, err)
	}
	// The line that it does not know is a cosignature/v1, checked here by hand.
	raw, err := base64.StdEncoding.DecodeString(opened.UnverifiedSigs[0].Base64)
	if err != nil || len(raw) != 4+8+64 {
		t.Fatalf("cosignature has %d bytes, %v", len(raw), err)
	}
	if seconds := binary.BigEndian.Uint64(raw[4:12]); seconds != 1_800_000_000 {
		t.Errorf("cosigned at %d", seconds)
	}
	if !ed25519.Verify(public(key), []byte("cosignature/v1\ntime 1800000000\n"+c.Text()), raw[12:]) {
		t.Error("the cosignature does not verify")
	}
}

func TestOpenRefusesWhatTheLogDidNotSign(t *testing.T) {
	key := testKey(1)
	c := Checkpoint{Origin: origin, Size: 42, Root: merkle.LeafHash([]byte("root"))}
	signed, err := Sign(c, time.Unix(1_800_000_000, 0), key)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(signed) {
		flipped := []byte(signed)
		flipped[i] ^= 1
		if got, _, err := Open(string(flipped), origin, public(key)); err == nil {
			t.Errorf("byte %d (%q) flipped: opened as %+v", i, signed[i], got)
		}
	}
	if _, _, err := Open(signed, origin, public(testKey(2))); err == nil {
		t.Error("opened with another key")
	}
	if _, _, err := Open(signed, "log.example.com/l/2", public(key)); err == nil {
		t.Error("opened as another log's")
	}
	lines := strings.SplitAfter(signed, "\n")
	for _, missing := range []int{4, 5} {
		short := strings.Join(append(append([]string{}, lines[:missing]...), lines[missing+1:]...), "")
		if _, _, err := Open(short, origin, public(key)); err == nil {
			t.Errorf("opened without signature line %d", missing-3)
		}
	}
	unknown := signed + "— witness.example " + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{6}, 100)) + "\n"
	if _, _, err := Open(unknown, origin, public(key)); err != nil {
		t.Errorf("with a line of an unknown type: %v", err)
	}
}

func TestOriginsThatNamesCannotBeAreRefused(t *testing.T) {
	if err := CheckOrigin(origin); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"", "a b", "a+b", "a\nb", "https://log.example.com", "log.example.com/", "\xff", strings.Repeat("a", 256), "a\x00"} {
		if err := CheckOrigin(bad); err == nil {
			t.Errorf("%.20q was accepted", bad)
		}
	}
}
