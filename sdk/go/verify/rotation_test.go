package verify_test

import (
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// testRotation hands a log over to the key of another.
func testRotation(from, to *testLog) *leafv1.KeyRotation {
	r := verify.Rotation{
		Origin: from.origin, OldKey: from.verifierKey(), NewKey: to.verifierKey(), RotatedAt: time.Unix(1_800_000_000, 0), OldKeyRetiresAt: time.Unix(1_800_600_000, 0),
	}
	return &leafv1.KeyRotation{
		Origin: r.Origin, OldPublicKey: from.public(), NewPublicKey: to.public(),
		RotatedAt: timestamppb.New(r.RotatedAt), OldKeyRetiresAt: timestamppb.New(r.OldKeyRetiresAt),
		OldSignature: ed25519.Sign(from.key, verify.RotationStatement(r)), NewSignature: ed25519.Sign(to.key, verify.RotationStatement(r)),
	}
}

func rotationLeaf(t testing.TB, m *leafv1.KeyRotation) []byte {
	t.Helper()
	return marshal(t, &leafv1.Leaf{Nonce: filled(16, 0xd0), Kind: &leafv1.Leaf_KeyRotation{KeyRotation: m}})
}

// A log can put any hand-over into a leaf of its own, also one of a log whose name is more than a name.
func TestReportOfAHandOverIsFitForATerminal(t *testing.T) {
	name := "log.example.com/\x1b[2J\u009b\nFULL PROOF"
	l := newLog(testOrigin, 1)
	l.add(t, rotationLeaf(t, testRotation(newLog(name, 2), newLog(name, 3))))
	report, err := verify.Verify(encode(t, l.pack(t, 0, 1)), trust(l))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if got := text.String(); strings.ContainsAny(got, "\x1b\u009b") || strings.Count(got, "\nFULL PROOF") > 0 || !strings.Contains(got, "New key") {
		t.Errorf("got %q", got)
	}
}

func TestRotationsAreFollowedFromATrustedKeyOnly(t *testing.T) {
	var keys []string
	for _, l := range []*testLog{newLog(testOrigin, 1), newLog(testOrigin, 2), newLog(testOrigin, 3), newLog(testOrigin, 9)} {
		keys = append(keys, l.verifierKey())
	}
	one, two, stranger := keys[:1], keys[1:2], keys[3:]
	leaves := rotationLeaves(t)
	wrong := testRotation(newLog(testOrigin, 1), newLog(testOrigin, 2))
	wrong.NewSignature[0] ^= 1
	var cases []followCase
	for _, c := range []followCase{
		{"from the first key", one, leaves, keys[:3]},
		{"from the second", two, leaves, keys[1:3]},
		{"from a stranger's", stranger, leaves, stranger},
		{"from none", []string{}, leaves, []string{}},
		{"in the wrong order", one, [][]byte{leaves[1], leaves[0]}, keys[:2]},
		{"from what is no key", []string{"x"}, leaves, nil},
		{"by a wrong signature", one, [][]byte{leaves[0], rotationLeaf(t, wrong)}, nil},
		{"by another leaf", one, [][]byte{marshal(t, attemptLeaf(testAttempt()))}, nil},
	} {
		got, err := verify.FollowRotations(c.Trusted, c.Leaves)
		if (err == nil) != (c.Want != nil) || !slices.Equal(got, c.Want) {
			t.Errorf("%s: got %v, %v", c.Name, got, err)
		}
		cases = append(cases, c)
	}
	compareJSON(t, "testdata/follow.json", cases)
}

// rotationLeaves lead from the key of seed 1 to that of seed 2, and on to that of seed 3.
func rotationLeaves(t testing.TB) [][]byte {
	one, two, three := newLog(testOrigin, 1), newLog(testOrigin, 2), newLog(testOrigin, 3)
	return [][]byte{rotationLeaf(t, testRotation(one, two)), rotationLeaf(t, testRotation(two, three))}
}

// followCase is a row of testdata/follow.json, which the verifiers of all languages are tested with. Want is nil where the
// leaves are refused.
type followCase struct {
	Name    string   `json:"name"`
	Trusted []string `json:"trusted"`
	Leaves  [][]byte `json:"leaves"`
	Want    []string `json:"want"`
}

func wrongRotations(t testing.TB) map[string][]byte {
	stranger := newLog(testOrigin, 7)
	leaves := map[string][]byte{}
	for name, change := range map[string]func(*leafv1.KeyRotation){
		"another origin":       func(m *leafv1.KeyRotation) { m.Origin = "other.example.com/log/1" },
		"impossible origin":    func(m *leafv1.KeyRotation) { m.Origin = "a+b" },
		"another new key":      func(m *leafv1.KeyRotation) { m.NewPublicKey = stranger.public() },
		"another old key":      func(m *leafv1.KeyRotation) { m.OldPublicKey = stranger.public() },
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
		m := testRotation(newLog(testOrigin, 1), newLog(testOrigin, 2))
		change(m)
		leaves[name] = rotationLeaf(t, m)
	}
	return leaves
}

func TestWrongRotationsAreRefused(t *testing.T) {
	for name, leaf := range wrongRotations(t) {
		if r, err := verify.OpenRotation(leaf); err == nil {
			t.Errorf("%s: opened as %+v", name, r)
		}
		if text, err := verify.DescribeLeaf(leaf); err == nil {
			t.Errorf("%s: described as %s", name, text)
		}
	}
	text, err := verify.DescribeLeaf(rotationLeaves(t)[0])
	if err != nil || len(text) == 0 {
		t.Errorf("the right one: %s, %v", text, err)
	}
}

func FuzzOpenRotation(f *testing.F) {
	f.Add(rotationLeaves(f)[0])
	f.Fuzz(func(t *testing.T, leaf []byte) {
		r, err := verify.OpenRotation(leaf)
		if err == nil && (r.OldKey == r.NewKey || r.Origin == "") {
			t.Errorf("%+v", r)
		}
	})
}
