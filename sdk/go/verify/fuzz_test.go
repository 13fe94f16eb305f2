package verify_test

import (
	"bytes"
	"errors"
	"testing"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// What Parse takes is the canonical encoding of what it returns.
func FuzzParse(f *testing.F) {
	l := attemptLog(f)
	f.Add(encode(f, l.pack(f, 12, 40)))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := verify.Parse(data)
		var refused *verify.Error
		if err != nil {
			if !errors.As(err, &refused) {
				t.Fatalf("got %v", err)
			}
			return
		}
		if again := encode(t, p); !bytes.Equal(again, data) {
			t.Fatalf("took %q, which encodes as %q", data, again)
		}
	})
}

// No other file than the one that the log gave out is a full proof.
func FuzzVerify(f *testing.F) {
	l := attemptLog(f)
	data := encode(f, l.pack(f, 12, 40))
	f.Add(data, uint16(0), byte(0))
	f.Add(data, uint16(700), byte(1))
	f.Fuzz(func(t *testing.T, other []byte, at uint16, bits byte) {
		other = bytes.Clone(other)
		if len(other) > 0 {
			other[int(at)%len(other)] ^= bits
		}
		report, err := verify.Verify(other, trust(l))
		if err == nil && !bytes.Equal(other, data) {
			t.Fatalf("took %q: %+v", other, report)
		}
		if err != nil && report != nil && report.Full {
			t.Fatalf("refused with %v, and full", err)
		}
	})
}

// A checkpoint and keys of the attacker's making never crash the verifier, and never count as the trusted key's.
func FuzzCheckpoint(f *testing.F) {
	l := attemptLog(f)
	p := l.pack(f, 12, 40)
	f.Add(p.Checkpoint, l.verifierKey())
	f.Fuzz(func(t *testing.T, checkpoint, key string) {
		changed := *p
		changed.Checkpoint, changed.PublicKeys = checkpoint, []string{key}
		data, err := changed.Encode()
		if err != nil {
			return
		}
		if _, err := verify.Verify(data, trust(l)); err == nil && checkpoint[:len(l.text(t, 40))] != l.text(t, 40) {
			t.Fatalf("took checkpoint %q", checkpoint)
		}
	})
}

func FuzzDescribeLeaf(f *testing.F) {
	f.Add(marshal(f, attemptLeaf(testAttempt())))
	f.Add(marshal(f, &leafv1.Leaf{Nonce: filled(16, 1), Kind: &leafv1.Leaf_DeadLetter{DeadLetter: testDeadLetter()}}))
	f.Fuzz(func(t *testing.T, leaf []byte) {
		first, err := verify.DescribeLeaf(leaf)
		if err != nil {
			return
		}
		if second, err := verify.DescribeLeaf(leaf); err != nil || !bytes.Equal(first, second) {
			t.Fatalf("described as %s and %s, %v", first, second, err)
		}
	})
}
