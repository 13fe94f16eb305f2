package verify

import (
	"crypto/ed25519"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

func rotationKey(seed byte) (ed25519.PrivateKey, key) {
	private := ed25519.NewKeyFromSeed(append(make([]byte, 31), seed))
	return private, key{"log.example.com/log/1", typeEd25519, private.Public().(ed25519.PublicKey)}
}

func rotationMessage(from, to byte) *leafv1.KeyRotation {
	oldPrivate, oldKey := rotationKey(from)
	newPrivate, newKey := rotationKey(to)
	r := Rotation{Origin: oldKey.name, OldKey: oldKey.text(), NewKey: newKey.text(), RotatedAt: time.Unix(1_800_000_000, 0), OldKeyRetiresAt: time.Unix(1_800_600_000, 0)}
	return &leafv1.KeyRotation{
		Origin: r.Origin, OldPublicKey: oldKey.public, NewPublicKey: newKey.public,
		RotatedAt: timestamppb.New(r.RotatedAt), OldKeyRetiresAt: timestamppb.New(r.OldKeyRetiresAt),
		OldSignature: ed25519.Sign(oldPrivate, RotationStatement(r)), NewSignature: ed25519.Sign(newPrivate, RotationStatement(r)),
	}
}

func rotationLeaf(t testing.TB, m *leafv1.KeyRotation) []byte {
	t.Helper()
	leaf, err := proto.Marshal(&leafv1.Leaf{Nonce: make([]byte, nonceBytes), Kind: &leafv1.Leaf_KeyRotation{KeyRotation: m}})
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestRotationsAreFollowedFromATrustedKeyOnly(t *testing.T) {
	_, one := rotationKey(1)
	_, two := rotationKey(2)
	_, three := rotationKey(3)
	_, stranger := rotationKey(9)
	leaves := [][]byte{rotationLeaf(t, rotationMessage(1, 2)), rotationLeaf(t, rotationMessage(2, 3))}
	for _, test := range []struct{ trusted, want []string }{
		{[]string{one.text()}, []string{one.text(), two.text(), three.text()}},
		{[]string{two.text()}, []string{two.text(), three.text()}},
		{[]string{stranger.text()}, []string{stranger.text()}},
		{nil, nil},
	} {
		if got, err := FollowRotations(test.trusted, leaves); err != nil || !slices.Equal(got, test.want) {
			t.Errorf("from %v: %v, %v", test.trusted, got, err)
		}
	}
	if got, err := FollowRotations([]string{one.text()}, [][]byte{leaves[1], leaves[0]}); err != nil || len(got) != 2 {
		t.Errorf("in the wrong order: %v, %v", got, err)
	}
	if _, err := FollowRotations([]string{"x"}, leaves); err == nil {
		t.Error("a key that is none was taken")
	}
}

func TestWrongRotationsAreRefused(t *testing.T) {
	for name, change := range map[string]func(*leafv1.KeyRotation){
		"another origin":       func(m *leafv1.KeyRotation) { m.Origin = "other.example.com/log/1" },
		"impossible origin":    func(m *leafv1.KeyRotation) { m.Origin = "a+b" },
		"another new key":      func(m *leafv1.KeyRotation) { _, k := rotationKey(7); m.NewPublicKey = k.public },
		"another old key":      func(m *leafv1.KeyRotation) { _, k := rotationKey(7); m.OldPublicKey = k.public },
		"same key":             func(m *leafv1.KeyRotation) { m.NewPublicKey = m.OldPublicKey },
		"short key":            func(m *leafv1.KeyRotation) { m.NewPublicKey = m.NewPublicKey[:31] },
		"another time":         func(m *leafv1.KeyRotation) { m.RotatedAt.Seconds++ },
		"another end":          func(m *leafv1.KeyRotation) { m.OldKeyRetiresAt.Seconds++ },
		"fractions":            func(m *leafv1.KeyRotation) { m.RotatedAt.Nanos = 1 },
		"no time":              func(m *leafv1.KeyRotation) { m.RotatedAt = nil },
		"no old signature":     func(m *leafv1.KeyRotation) { m.OldSignature = nil },
		"signatures exchanged": func(m *leafv1.KeyRotation) { m.OldSignature, m.NewSignature = m.NewSignature, m.OldSignature },
		"new signature broken": func(m *leafv1.KeyRotation) { m.NewSignature[0] ^= 1 },
	} {
		m := rotationMessage(1, 2)
		change(m)
		leaf := rotationLeaf(t, m)
		if r, err := OpenRotation(leaf); err == nil {
			t.Errorf("%s: opened as %+v", name, r)
		}
		if text, err := DescribeLeaf(leaf); err == nil {
			t.Errorf("%s: described as %s", name, text)
		}
	}
	text, err := DescribeLeaf(rotationLeaf(t, rotationMessage(1, 2)))
	if err != nil || len(text) == 0 {
		t.Errorf("the right one: %s, %v", text, err)
	}
}

func FuzzOpenRotation(f *testing.F) {
	f.Add(rotationLeaf(f, rotationMessage(1, 2)))
	f.Fuzz(func(t *testing.T, leaf []byte) {
		r, err := OpenRotation(leaf)
		if err == nil && (r.OldKey == r.NewKey || r.Origin == "") {
			t.Errorf("%+v", r)
		}
	})
}
