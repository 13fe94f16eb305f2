package verify_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/reflect/protoreflect"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

var update = flag.Bool("update", false, "write the golden files")

func trust(l *testLog) verify.Options { return verify.Options{TrustedKeys: []string{l.verifierKey()}} }

func TestFullProof(t *testing.T) {
	l := attemptLog(t)
	report, err := verify.Verify(encode(t, l.pack(t, 12, 40)), trust(l))
	if err != nil {
		t.Fatal(err)
	}
	if !report.Full || report.Level != verify.LevelFull || report.Key != l.verifierKey() || !report.HeadTime.Equal(testTime) {
		t.Errorf("got full %t, level %q, key %q, time %v", report.Full, report.Level, report.Key, report.HeadTime)
	}
	if got := report.Leaf.GetAttempt().GetUrl(); got != testAttempt().Url {
		t.Errorf("got URL %q, want %q", got, testAttempt().Url)
	}
	for _, check := range report.Checks {
		if !check.OK {
			t.Errorf("check %q failed: %s", check.Name, check.Detail)
		}
	}
}

func TestWithoutKeyItIsOnlyConsistent(t *testing.T) {
	l := attemptLog(t)
	report, err := verify.Verify(encode(t, l.pack(t, 12, 40)), verify.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if report.Full || report.Level != "consistent, but the key is not checked" {
		t.Errorf("got full %t, level %q", report.Full, report.Level)
	}
}

func TestEachLeafOfEachSize(t *testing.T) {
	l := newLog(testOrigin, 1)
	for size := int64(1); size <= 20; size++ {
		l.add(t, marshal(t, &leafv1.Leaf{Nonce: filled(16, byte(size)), Kind: &leafv1.Leaf_Attempt{Attempt: testAttempt()}}))
		for index := range size {
			if report, err := verify.Verify(encode(t, l.pack(t, index, size)), trust(l)); err != nil || !report.Full {
				t.Fatalf("leaf %d of %d: %v", index, size, err)
			}
		}
	}
}

// witnessed is a package whose head a witness has cosigned.
func witnessed(t *testing.T, l *testLog) *verify.Package {
	witness := newLog("witness.example.org/w", 9)
	p := l.pack(t, 12, 40)
	p.Checkpoint = l.checkpoint(t, 40, witness.cosigner())
	p.PublicKeys = append(p.PublicKeys, vkey(witness.origin, 4, witness.public()))
	return p
}

// The promise of the format: no byte of the file can change unnoticed, with a key or without.
func TestEveryFlippedByteIsRefused(t *testing.T) {
	l := attemptLog(t)
	data := encode(t, witnessed(t, l))
	for name, options := range map[string]verify.Options{"with key": trust(l), "without key": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			flips := []byte{1, 2, 4, 8, 16, 32, 64, 128}
			if len(options.TrustedKeys) == 0 {
				flips = []byte{1, 32}
			}
			if _, err := verify.Verify(data, options); err != nil {
				t.Fatal(err)
			}
			flipped := bytes.Clone(data)
			for i := range data {
				for _, bits := range flips {
					flipped[i] = data[i] ^ bits
					report, err := verify.Verify(flipped, options)
					var refused *verify.Error
					if !errors.As(err, &refused) || refused.Reason == "" || report != nil && report.Full {
						t.Errorf("byte %d, %q for %q near %q: got %v, %v", i, flipped[i], data[i], data[max(0, i-20):min(len(data), i+20)], report, err)
					}
				}
				flipped[i] = data[i]
				if _, err := verify.Verify(append(bytes.Clone(data[:i]), data[i+1:]...), options); err == nil {
					t.Errorf("byte %d, %q near %q, may be left out", i, data[i], data[max(0, i-20):min(len(data), i+20)])
				}
			}
		})
	}
}

// refusal is a change of the package of leaf 12 of attemptLog, and what comes of it.
type refusal struct {
	name   string
	change func(p *verify.Package)
	check  string
	reason string
}

func refusals(t *testing.T, l *testLog) []refusal {
	other := newLog(testOrigin, 2)
	witness := newLog("witness.example.org/w", 9)
	renamed := newLog("other.example.com/log/1", 1)
	swap := func(s, old, with string) string { return strings.Replace(s, old, with, 1) }
	return []refusal{
		{"format", func(p *verify.Package) { p.Format = "kapsel-proof/v2" }, verify.CheckFormat, "format is"},
		{"upper case", func(p *verify.Package) { p.RootHash = strings.ToUpper(p.RootHash) }, verify.CheckFormat, "root_hash: hex is in upper case"},
		{"short hash", func(p *verify.Package) { p.LeafHash = p.LeafHash[2:] }, verify.CheckFormat, "leaf_hash: has 62"},
		{"path too long", func(p *verify.Package) { p.AuditPath = make([]string, 65) }, verify.CheckFormat, "audit_path has 65"},
		{"leaf beyond the tree", func(p *verify.Package) { p.LeafIndex = 40 }, verify.CheckFormat, "leaf_index is 40"},
		{"huge tree", func(p *verify.Package) { p.TreeSize = 1 << 53 }, verify.CheckFormat, "tree_size is"},
		{"leaf bytes", func(p *verify.Package) { p.Leaf = p.Leaf[:len(p.Leaf)-2] }, verify.CheckLeafHash, "hashes to"},
		{"decoded outcome", func(p *verify.Package) {
			p.Attempt = bytes.Replace(p.Attempt, []byte(`"succeeded"`), []byte(`"failed"`), 1)
		}, verify.CheckLeaf, `"outcome" is "\"failed\"" instead of "\"succeeded\""`},
		{"decoded field missing", func(p *verify.Package) {
			p.Attempt = bytes.Replace(p.Attempt, []byte(`"number":2,`), nil, 1)
		}, verify.CheckLeaf, `"number"`},
		{"decoded field twice", func(p *verify.Package) {
			p.Attempt = bytes.Replace(p.Attempt, []byte(`"number":2,`), []byte(`"number":2,"number":2,`), 1)
		}, verify.CheckLeaf, "its fields"},
		{"no decoded leaf", func(p *verify.Package) { p.Attempt = nil }, verify.CheckLeaf, "attempt is not"},
		{"other index", func(p *verify.Package) { p.LeafIndex = 13 }, verify.CheckInclusion, "audit path"},
		{"path cut", func(p *verify.Package) { p.AuditPath = p.AuditPath[1:] }, verify.CheckInclusion, "audit path"},
		{"no keys", func(p *verify.Package) { p.PublicKeys = nil }, verify.CheckPublicKeys, "names no key"},
		{"key id", func(p *verify.Package) { p.PublicKeys[0] = swap(p.PublicKeys[0], "+", "x+") }, verify.CheckPublicKeys, "key id"},
		{"not a note", func(p *verify.Package) { p.Checkpoint = "x" }, verify.CheckCheckpoint, "not a signed note"},
		{"origin", func(p *verify.Package) { p.Origin = "log.example.org/log/1" }, verify.CheckCheckpoint, "is of log"},
		{"log id", func(p *verify.Package) { p.LogID = "2" }, verify.CheckCheckpoint, "log_id"},
		{"other size", func(p *verify.Package) { p.Checkpoint = l.checkpoint(t, 39) }, verify.CheckCheckpoint, "tree size 39"},
		{"wrong signature", func(p *verify.Package) { p.Checkpoint = swap(p.Checkpoint, "\n40\n", "\n41\n") }, verify.CheckCheckpoint, "is wrong"},
		{"line twice", func(p *verify.Package) {
			p.Checkpoint += p.Checkpoint[strings.LastIndex(p.Checkpoint, "—"):]
		}, verify.CheckCheckpoint, "two signature lines"},
		{"line without key", func(p *verify.Package) {
			p.Checkpoint = l.checkpoint(t, 40, witness.cosigner())
		}, verify.CheckCheckpoint, "no such key"},
		{"time beyond the calendar", func(p *verify.Package) {
			late := signer{l.origin, 4, l.key, time.Unix(1<<60, 0)}
			p.Checkpoint = signNote(t, l.text(t, 40), l.signer(), late)
		}, verify.CheckCheckpoint, "no possible time"},
		{"signed by another key", func(p *verify.Package) {
			p.Checkpoint = signNote(t, l.text(t, 40), other.signer(), other.cosigner())
			p.PublicKeys = []string{other.verifierKey()}
		}, verify.CheckSignature, "no trusted key"},
		{"signed under another name", func(p *verify.Package) {
			p.Checkpoint = signNote(t, l.text(t, 40), renamed.signer())
			p.PublicKeys = []string{renamed.verifierKey()}
		}, verify.CheckSignature, "no trusted key"},
		{"only cosigned", func(p *verify.Package) {
			p.Checkpoint = signNote(t, l.text(t, 40), l.cosigner())
		}, verify.CheckSignature, "no trusted key"},
	}
}

func TestRefusesWithTheReason(t *testing.T) {
	l := attemptLog(t)
	for _, c := range refusals(t, l) {
		t.Run(c.name, func(t *testing.T) {
			p := l.pack(t, 12, 40)
			c.change(p)
			report, err := verify.Verify(encode(t, p), trust(l))
			var refused *verify.Error
			if !errors.As(err, &refused) || refused.Check != c.check || !strings.Contains(refused.Reason, c.reason) {
				t.Fatalf("got %v, want %s: …%s…", err, c.check, c.reason)
			}
			if report != nil && (report.Full || report.Level != verify.LevelRefused || report.Checks[len(report.Checks)-1].OK) {
				t.Errorf("the report does not say that it was refused: %+v", report)
			}
		})
	}
}

// otherEncodings are spellings of a package that are not the canonical one.
func otherEncodings(data string) map[string]string {
	return map[string]string{
		"empty":              "",
		"no newline":         strings.TrimSuffix(data, "\n"),
		"trailing data":      data + "{}",
		"trailing space":     data + " ",
		"tab for space":      strings.Replace(data, "  \"origin\"", "\t \"origin\"", 1),
		"unknown field":      strings.Replace(data, `"origin"`, `"x": 1, "origin"`, 1),
		"repeated field":     strings.Replace(data, `  "tree_size": 40,`, "  \"tree_size\": 40,\n  \"tree_size\": 40,", 1),
		"other case":         strings.Replace(data, `"origin"`, `"Origin"`, 1),
		"escape":             strings.Replace(data, `"kapsel-proof/v1"`, `"kapsel-proof\/v1"`, 1),
		"number with point":  strings.Replace(data, `"tree_size": 40`, `"tree_size": 40.0`, 1),
		"null":               strings.Replace(data, `"tree_size": 40`, `"tree_size": null`, 1),
		"too long":           data + strings.Repeat(" ", verify.MaxPackageBytes),
		"array":              "[" + data + "]",
		"deep":               strings.Repeat("[", 100_000),
		"nested":             strings.Replace(data, `"attempt": {`, `"attempt": `+strings.Repeat(`{"a":`, 7)+`[]`+strings.Repeat(`}`, 7)+`, "attempt": {`, 1),
		"byte order mark":    "\uFEFF" + data,
		"carriage returns":   strings.ReplaceAll(data, "\n", "\r\n"),
		"invalid characters": strings.Replace(data, "log.example.com", "log.ex\xffmple.com", 1),
		"half a character":   strings.Replace(data, "log.example.com", `log.ex\ud800mple.com`, 1),
	}
}

func TestRefusesOtherEncodings(t *testing.T) {
	l := attemptLog(t)
	data := string(encode(t, l.pack(t, 12, 40)))
	for name, changed := range otherEncodings(data) {
		if changed == data {
			t.Fatalf("%s: nothing changed", name)
		}
		var refused *verify.Error
		if _, err := verify.Parse([]byte(changed)); !errors.As(err, &refused) || refused.Check != verify.CheckFormat {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// The canonical form is indented, so what is nested deeply would grow to gigabytes, were it encoded.
func TestNestedJSONIsRefusedInLittleMemory(t *testing.T) {
	data := string(encode(t, attemptLog(t).pack(t, 12, 40)))
	at := strings.Index(data, `"attempt": `) + len(`"attempt": `)
	bomb := []byte(data[:at] + strings.Repeat("[", 9000) + "1" + strings.Repeat(",1", 9000) + strings.Repeat("]", 9000) + "\n}\n")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := verify.Parse(bomb)
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "nested") {
		t.Errorf("got %v", err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
		t.Errorf("took %d bytes of memory for a file of %d", took, len(bomb))
	}
}

func withoutTime(t *testing.T, l *testLog) *verify.Package {
	p := l.pack(t, 12, 40)
	p.Checkpoint = signNote(t, l.text(t, 40), l.signer())
	return p
}

func TestHeadWithoutTime(t *testing.T) {
	l := attemptLog(t)
	p := withoutTime(t, l)
	report, err := verify.Verify(encode(t, p), trust(l))
	if err != nil || !report.Full || !report.HeadTime.IsZero() {
		t.Fatalf("got %+v, %v", report, err)
	}
}

func withFormerKey(t *testing.T, l *testLog) *verify.Package {
	p := l.pack(t, 12, 40)
	p.PublicKeys = []string{newLog(testOrigin, 3).verifierKey(), l.verifierKey()}
	return p
}

// A log changes its key: packages name all keys that it has had, and the reader trusts old and new.
func TestFormerKeys(t *testing.T) {
	l := attemptLog(t)
	p := withFormerKey(t, l)
	report, err := verify.Verify(encode(t, p), verify.Options{TrustedKeys: p.PublicKeys})
	if err != nil || !report.Full || report.Key != l.verifierKey() {
		t.Fatalf("got %+v, %v", report, err)
	}
}

func withUnknownType(t *testing.T, l *testLog) *verify.Package {
	p := l.pack(t, 12, 40)
	quantum := newLog("witness.example.org/q", 7)
	line := signer{quantum.origin, 6, quantum.key, testTime}
	p.Checkpoint = l.checkpoint(t, 40, note.Signer(line))
	p.PublicKeys = append(p.PublicKeys, vkey(quantum.origin, 6, quantum.public()))
	return p
}

func TestCosignatureOfUnknownTypeIsKept(t *testing.T) {
	l := attemptLog(t)
	report, err := verify.Verify(encode(t, withUnknownType(t, l)), trust(l))
	if err != nil || !report.Full || len(report.NotChecked) != 1 || !strings.HasPrefix(report.NotChecked[0], "witness.example.org/q+") {
		t.Fatalf("got %+v, %v", report, err)
	}
}

func TestTrustedKeyMustBeAKey(t *testing.T) {
	l := attemptLog(t)
	data := encode(t, l.pack(t, 12, 40))
	for _, key := range []string{"", "x", l.verifierKey() + "=", strings.ToUpper(l.verifierKey()), l.verifierKey()[1:]} {
		var refused *verify.Error
		if _, err := verify.Verify(data, verify.Options{TrustedKeys: []string{key}}); err == nil || errors.As(err, &refused) {
			t.Errorf("key %q: got %v", key, err)
		}
	}
}

// The files in testdata are frozen: packages that were given out must be verified for ever.
func TestGoldenPackages(t *testing.T) {
	attempts := attemptLog(t)
	letters := newLog(testOrigin, 1)
	letters.add(t, marshal(t, &leafv1.Leaf{Nonce: filled(16, 0xb0), Kind: &leafv1.Leaf_DeadLetter{DeadLetter: testDeadLetter()}}))
	erasures := newLog(testOrigin, 1)
	erasures.fill(t, 3)
	erasures.add(t, marshal(t, &leafv1.Leaf{Nonce: filled(16, 0xc0), Kind: &leafv1.Leaf_Erasure{Erasure: testErasure()}}))
	rotations, next := newLog(testOrigin, 1), newLog(testOrigin, 2)
	rotations.fill(t, 2)
	rotations.add(t, rotationLeaf(t, testRotation(rotations, next)))
	overlap := rotations.pack(t, 2, 3)
	overlap.Checkpoint = rotations.checkpoint(t, 3, next.signer(), next.cosigner())
	overlap.PublicKeys = append(overlap.PublicKeys, next.verifierKey())
	for name, made := range map[string][]byte{
		"attempt":      encode(t, attempts.pack(t, 12, 40)),
		"dead_letter":  encode(t, letters.pack(t, 0, 1)),
		"erasure":      encode(t, erasures.pack(t, 3, 4)),
		"key_rotation": encode(t, overlap),
		"witnessed":    encode(t, witnessed(t, attempts)),
	} {
		report, err := verify.Verify(made, trust(attempts))
		if err != nil {
			t.Fatal(err)
		}
		var text bytes.Buffer
		if err := report.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		compare(t, "testdata/"+name+".proof.json", made)
		compare(t, "testdata/"+name+".txt", text.Bytes())
	}
}

// A value that the leaf's schema gets later is described, and so must be in the published schema.
func TestPublishedSchemaListsEveryWord(t *testing.T) {
	data, err := os.ReadFile("../../../docs/schema/kapsel-proof-v1.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Defs map[string]struct {
			Properties map[string]struct{ Enum []string }
		} `json:"$defs"`
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		kind, field, prefix string
		values              protoreflect.EnumValueDescriptors
	}{
		{"attempt", "outcome", "OUTCOME_", leafv1.Outcome(0).Descriptor().Values()},
		{"attempt", "failure", "FAILURE_", leafv1.Failure(0).Descriptor().Values()},
		{"dead_letter", "reason", "DEAD_LETTER_REASON_", leafv1.DeadLetterReason(0).Descriptor().Values()},
	} {
		var want []string
		for i := range c.values.Len() {
			if v := c.values.Get(i); v.Number() != 0 {
				want = append(want, strings.ToLower(strings.TrimPrefix(string(v.Name()), c.prefix)))
			}
		}
		if got := schema.Defs[c.kind].Properties[c.field].Enum; !slices.Equal(got, want) {
			t.Errorf("%s of %s: the schema lists %v, and leaves have %v", c.field, c.kind, got, want)
		}
	}
	kinds := (&leafv1.Leaf{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()
	for i := range kinds.Len() {
		if name := string(kinds.Get(i).Name()); len(schema.Defs[name].Properties) == 0 {
			t.Errorf("the schema has no %s", name)
		}
	}
}

// The published schema says of each kind of package that it is one, and of a package with anything more that it is not.
func TestPublishedSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../../../docs/schema/kapsel-proof-v1.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"attempt", "dead_letter", "erasure", "key_rotation", "witnessed"} {
		data, err := os.ReadFile("testdata/" + name + ".proof.json")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			old, with string
			valid     bool
		}{{"", "", true}, {`"kind"`, `"sort"`, false}, {`"origin"`, `"more": 1, "origin"`, false}, {`"leaf_index"`, `"leaf"`, false}} {
			value, err := jsonschema.UnmarshalJSON(strings.NewReader(strings.Replace(string(data), c.old, c.with, 1)))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(value); (err == nil) != c.valid {
				t.Errorf("%s with %s: %v", name, c.with, err)
			}
		}
	}
}

func compare(t *testing.T, path string, made []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, made, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(made, golden) {
		t.Errorf("%s differs:\n%s", path, made)
	}
}

func TestReportOfARefusedPackage(t *testing.T) {
	l := attemptLog(t)
	p := l.pack(t, 12, 40)
	p.LeafIndex = 11
	p.Origin = "\x1b[2J"
	report, err := verify.Verify(encode(t, p), trust(l))
	if err == nil {
		t.Fatal("not refused")
	}
	var text strings.Builder
	if err := report.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if got := text.String(); !strings.HasPrefix(got, "REFUSED") || !strings.Contains(got, "WRONG") || strings.Contains(got, "\x1b") {
		t.Errorf("got\n%s", got)
	}
}
