package verify_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// The tables of this package's tests as files, so that the verifiers of other languages are held to the same answers.

// sharedCase is a row of testdata/cases.json: a file, written as what is changed in the fixture "attempt", and what comes of it.
type sharedCase struct {
	Name    string   `json:"name"`
	At      int      `json:"at"`   // byte of the fixture from which on
	Drop    int      `json:"drop"` // so many are left out
	Put     []byte   `json:"put"`  // and these come instead
	Trusted []string `json:"trusted"`
	Level   string   `json:"level"`
	// Check is the one that failed.
	Check      string   `json:"check,omitempty"`
	NotChecked []string `json:"not_checked,omitempty"`
}

func TestSharedCases(t *testing.T) {
	l := attemptLog(t)
	files := map[string][]byte{
		"a witness's line": encode(t, witnessed(t, l)), "a former key": encode(t, withFormerKey(t, l)),
		"a line of an unknown type": encode(t, withUnknownType(t, l)), "no time": encode(t, withoutTime(t, l)), "nothing": encode(t, l.pack(t, 12, 40)),
		"what looks like half a character": encode(t, withBackslash(t)),
	}
	for _, c := range refusals(t, l) {
		p := l.pack(t, 12, 40)
		c.change(p)
		files[c.name] = encode(t, p)
	}
	for name, file := range otherEncodings(string(encode(t, l.pack(t, 12, 40)))) {
		if len(file) < 64<<10 { // what is huge is made anew by each test
			files["encoding: "+name] = []byte(file)
		}
	}
	base := encode(t, l.pack(t, 12, 40))
	var cases []sharedCase
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for _, trusted := range [][]string{trust(l).TrustedKeys, {}} {
			c := difference(base, files[name])
			c.Name, c.Trusted = name, trusted
			report, err := verify.Verify(files[name], verify.Options{TrustedKeys: trusted})
			var refused *verify.Error
			switch {
			case errors.As(err, &refused):
				c.Level, c.Check = verify.LevelRefused, refused.Check
			case err != nil:
				t.Fatal(err)
			default:
				c.Level, c.NotChecked = report.Level, report.NotChecked
			}
			cases = append(cases, c)
		}
	}
	compareJSON(t, "testdata/cases.json", cases)
}

// withBackslash is a package whose text has an escaped backslash, and after it what would be half a character after another one.
func withBackslash(t *testing.T) *verify.Package {
	l := newLog(testOrigin, 1)
	l.fill(t, 12)
	a := testAttempt()
	a.Url = `https://x/\ud800\\uDC00`
	l.add(t, marshal(t, attemptLeaf(a)))
	l.fill(t, 40)
	return l.pack(t, 12, 40)
}

// difference leaves out what two files begin and end with.
func difference(base, file []byte) sharedCase {
	at, end := 0, 0
	for at < min(len(base), len(file)) && base[at] == file[at] {
		at++
	}
	for end < min(len(base), len(file))-at && base[len(base)-1-end] == file[len(file)-1-end] {
		end++
	}
	return sharedCase{At: at, Drop: len(base) - end - at, Put: file[at : len(file)-end]}
}

// TestSharedLeaves: testdata/leaves.json has leaves of each kind and value, and their description; null for those that have none.
func TestSharedLeaves(t *testing.T) {
	type row struct {
		Name string          `json:"name"`
		Leaf []byte          `json:"leaf"`
		Text json.RawMessage `json:"text"`
	}
	leaves := describedLeaves(t)
	maps.Copy(leaves, brokenLeaves(t))
	maps.Copy(leaves, misspeltLeaves(t))
	maps.Copy(leaves, unusualLeaves(t))
	for name, leaf := range wrongRotations(t) {
		leaves["rotation: "+name] = leaf
	}
	var rows []row
	for _, name := range slices.Sorted(maps.Keys(leaves)) {
		text, err := verify.DescribeLeaf(leaves[name])
		if err != nil {
			text = json.RawMessage("null")
		}
		rows = append(rows, row{name, leaves[name], text})
	}
	compareJSON(t, "testdata/leaves.json", rows)
}

func describedLeaves(t *testing.T) map[string][]byte {
	leaves := map[string][]byte{"rotation": rotationLeaves(t)[0]}
	values := func(e protoreflect.Enum, add func(name string, number protoreflect.EnumNumber)) {
		for i := range e.Descriptor().Values().Len() {
			v := e.Descriptor().Values().Get(i)
			add(string(v.Name()), v.Number())
		}
	}
	attempt := func(name string, change func(*leafv1.Attempt)) {
		a := testAttempt()
		change(a)
		leaves[name] = marshal(t, attemptLeaf(a))
	}
	values(leafv1.Outcome(0), func(name string, n protoreflect.EnumNumber) {
		attempt(name, func(a *leafv1.Attempt) { a.Outcome = leafv1.Outcome(n) })
	})
	values(leafv1.Failure(0), func(name string, n protoreflect.EnumNumber) {
		attempt(name, func(a *leafv1.Attempt) { a.Failure = leafv1.Failure(n) })
	})
	values(leafv1.DeadLetterReason(0), func(name string, n protoreflect.EnumNumber) {
		d := testDeadLetter()
		d.Reason = leafv1.DeadLetterReason(n)
		leaves[name] = marshal(t, letterLeaf(d))
	})
	attempt("lost", func(a *leafv1.Attempt) {
		a.StartedAt, a.Duration, a.StatusCode, a.RequestHeadersSha256, a.ResponseSha256 = nil, nil, 0, nil, nil
		a.Outcome, a.Failure, a.Late = leafv1.Outcome_OUTCOME_UNKNOWN, leafv1.Failure_FAILURE_WORKER_LOST, true
	})
	attempt("longest duration", func(a *leafv1.Attempt) { a.Duration = durationpb.New(1<<53 - 1) })
	attempt("largest integers", func(a *leafv1.Attempt) {
		a.PayloadBytes, a.ResponseBytes, a.Number, a.StatusCode = 1<<53-1, 1<<53-1, 1<<32-1, 999
	})
	attempt("odd characters", func(a *leafv1.Attempt) {
		a.Url = "https://x/\u2028\u2029\\u2028\"<>&\u007f\t\x01é😀\ufeff\u0000"
	})
	return leaves
}

func compareJSON(t *testing.T, path string, value any) {
	t.Helper()
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", " ")
	if err := encoder.Encode(value); err != nil {
		t.Fatal(err)
	}
	compare(t, path, out.Bytes())
}

// The package of the fixture is what the rows of cases.json are changes of.
func TestSharedCasesAreOfTheFixture(t *testing.T) {
	fixture, err := os.ReadFile("testdata/attempt.proof.json")
	if err != nil || !bytes.Equal(fixture, encode(t, attemptLog(t).pack(t, 12, 40))) {
		t.Fatalf("the fixture is another package: %v", err)
	}
}
