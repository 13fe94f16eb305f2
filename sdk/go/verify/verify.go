package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// The checks of Verify, in the order in which they are made.
const (
	CheckFormat     = "format"      // the file is a package in its canonical form
	CheckLeaf       = "leaf"        // "attempt" is what the leaf's bytes say
	CheckLeafHash   = "leaf hash"   // "leaf_hash" is the hash of the leaf's bytes
	CheckInclusion  = "inclusion"   // the audit path leads from the leaf to the root hash
	CheckPublicKeys = "public keys" // the package's keys are well-formed
	CheckCheckpoint = "checkpoint"  // the note says the same as the package, and no line in it is wrong
	CheckSignature  = "signature"   // the log's key signed it, and is trusted
	CheckTime       = "time"        // the log's key says when
)

// The levels of a report.
const (
	LevelFull       = "full proof"
	LevelConsistent = "consistent, but the key is not checked"
	LevelRefused    = "refused"
)

// Error says why a package was refused.
type Error struct {
	// Check is the check that failed, one of the Check constants.
	Check string
	// Reason names what differs.
	Reason string
}

func (e *Error) Error() string { return e.Check + ": " + e.Reason }

// Options say whom to trust.
type Options struct {
	// TrustedKeys are verifier keys, "<name>+<key id>+<base64>", that were obtained from elsewhere than the package. A
	// key counts if its name is the package's origin. Keys of several logs, and old and new ones of one log, may be
	// given. Without any the package is only checked to be consistent.
	TrustedKeys []string
}

// Verify checks a proof package. The error is nil when nothing is wrong with it; whether it also proves something is
// in Report.Full, which is false when no key was given.
//
// An *Error means that the package was refused, another error that an option is wrong. The report is nil if the file
// could not be read as a package at all, otherwise it says how far the checks went.
func Verify(data []byte, options Options) (*Report, error) {
	trusted, err := parseKeys(options.TrustedKeys)
	if err != nil {
		return nil, fmt.Errorf("trusted %w", err)
	}
	p, c, err := parse(data)
	if err != nil {
		return nil, &Error{Check: CheckFormat, Reason: err.Error()}
	}
	v := &verification{
		Package: p, contents: c, trusted: trusted,
		report: &Report{Package: p, Level: LevelRefused, Checks: []Check{{CheckFormat, true, "canonical " + Format}}},
	}
	for _, step := range []struct {
		check string
		run   func() (detail string, err error)
	}{
		{CheckLeafHash, v.leafHash},
		{CheckLeaf, v.leaf},
		{CheckInclusion, v.inclusion},
		{CheckPublicKeys, v.publicKeys},
		{CheckCheckpoint, v.checkpoint},
		{CheckSignature, v.signature},
		{CheckTime, v.time},
	} {
		detail, err := step.run()
		if err != nil {
			v.report.Checks = append(v.report.Checks, Check{step.check, false, err.Error()})
			return v.report, &Error{Check: step.check, Reason: err.Error()}
		}
		if detail != "" {
			v.report.Checks = append(v.report.Checks, Check{step.check, true, detail})
		}
	}
	v.report.Level, v.report.Full = LevelConsistent, len(trusted) > 0
	if v.report.Full {
		v.report.Level = LevelFull
	}
	return v.report, nil
}

// verification is a package on its way through the checks.
type verification struct {
	*Package
	*contents
	trusted []key
	listed  []key  // public_keys
	lines   []line // of the checkpoint
	signer  key    // whose signature counts
	report  *Report
}

func (v *verification) leafHash() (string, error) {
	if got := rfc6962.DefaultHasher.HashLeaf(v.contents.leaf); !bytes.Equal(got, v.contents.leafHash) {
		return "", fmt.Errorf("the leaf hashes to %x, and leaf_hash is %s", got, v.LeafHash)
	}
	return "SHA-256 of the leaf's bytes is " + v.LeafHash, nil
}

func (v *verification) leaf() (string, error) {
	leaf, err := decodeLeaf(v.contents.leaf)
	if err != nil {
		return "", err
	}
	want, err := describe(leaf)
	if err != nil {
		return "", err
	}
	var got bytes.Buffer
	if err := json.Compact(&got, v.Attempt); err != nil {
		return "", errors.New("attempt is not JSON")
	}
	if !bytes.Equal(got.Bytes(), want) {
		return "", fmt.Errorf("attempt is not what the leaf says: %s", differingFields(got.Bytes(), want))
	}
	v.report.Leaf = leaf
	return "the readable part is what the leaf's bytes say", nil
}

func (v *verification) inclusion() (string, error) {
	err := proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(v.LeafIndex), uint64(v.TreeSize), v.contents.leafHash, v.path, v.root)
	if err != nil {
		return "", fmt.Errorf("the audit path does not lead from leaf %d to root_hash in a tree of %d leaves", v.LeafIndex, v.TreeSize)
	}
	return fmt.Sprintf("leaf %d is in the tree of %d leaves with root %s", v.LeafIndex, v.TreeSize, v.RootHash), nil
}

func (v *verification) publicKeys() (string, error) {
	keys, err := parseKeys(v.PublicKeys)
	if err != nil {
		return "", err
	}
	if len(keys) == 0 {
		return "", errors.New("the package names no key")
	}
	v.listed = keys
	return "", nil // says nothing by itself
}

func (v *verification) checkpoint() (string, error) {
	h, lines, err := openCheckpoint(v.Checkpoint, newRing(append(slices.Clone(v.trusted), v.listed...)...))
	if err != nil {
		return "", fmt.Errorf("the checkpoint %w", err)
	}
	switch {
	case h.origin != v.Origin:
		return "", fmt.Errorf("the checkpoint is of log %.300q, and origin is %q", h.origin, v.Origin)
	case !strings.HasSuffix(v.Origin, "/"+v.LogID) || strings.Contains(v.LogID, "/"):
		return "", fmt.Errorf("log_id is %q, and is not the last path segment of origin %q", v.LogID, v.Origin)
	case h.size != v.TreeSize:
		return "", fmt.Errorf("the checkpoint has tree size %d, and tree_size is %d", h.size, v.TreeSize)
	case !bytes.Equal(h.root[:], v.root):
		return "", fmt.Errorf("the checkpoint has root %x, and root_hash is %s", h.root, v.RootHash)
	}
	for _, l := range lines {
		switch {
		case l.verified():
		case v.lists(l.lineID):
			v.report.NotChecked = append(v.report.NotChecked, fmt.Sprintf("%s+%08x", l.name, l.id))
		default:
			return "", fmt.Errorf("the checkpoint has a signature of %s+%08x, and public_keys has no such key", l.name, l.id)
		}
	}
	v.lines = lines
	return "it names the same log, tree size and root, and none of its signatures is wrong", nil
}

// lists reports whether public_keys has the key of a line, of a type that this package does not know.
func (v *verification) lists(id lineID) bool {
	return slices.ContainsFunc(v.listed, func(k key) bool {
		return !k.canVerify() && id == lineID{k.name, k.id(k.kind)}
	})
}

func (v *verification) signature() (string, error) {
	keys := v.trusted
	if len(keys) == 0 {
		keys = v.listed
	}
	at := slices.IndexFunc(keys, func(k key) bool {
		return k.name == v.Origin && k.kind == typeEd25519 && find(v.lines, k, typeEd25519) != nil
	})
	if at < 0 && len(v.trusted) > 0 {
		return "", fmt.Errorf("no trusted key has signed the checkpoint as %q", v.Origin)
	}
	if at < 0 {
		return "", fmt.Errorf("the checkpoint is not signed by its log, %q", v.Origin)
	}
	v.signer = keys[at]
	v.report.Key = v.signer.text()
	if len(v.trusted) == 0 {
		return "Ed25519, by the key in the package itself, which anybody could have put there", nil
	}
	return "Ed25519, by the trusted key " + v.report.Key, nil
}

func (v *verification) time() (string, error) {
	l := find(v.lines, v.signer, typeCosignature)
	if l == nil {
		return "", nil // an older kind of head, which says nothing of time
	}
	v.report.HeadTime = l.at
	return "the log signed this tree at " + l.at.Format(time.RFC3339), nil
}

// differingFields names the fields in which two JSON objects differ.
func differingFields(got, want []byte) string {
	var a, b map[string]json.RawMessage
	if json.Unmarshal(got, &a) != nil || json.Unmarshal(want, &b) != nil {
		return "it is not an object"
	}
	names := make(map[string]bool)
	for name := range a {
		names[name] = !bytes.Equal(a[name], b[name])
	}
	for name := range b {
		names[name] = !bytes.Equal(a[name], b[name])
	}
	maps.DeleteFunc(names, func(_ string, differs bool) bool { return !differs })
	if len(names) == 0 {
		return "its fields are repeated or in another order"
	}
	var list []string
	for _, name := range slices.Sorted(maps.Keys(names)) {
		list = append(list, fmt.Sprintf("%.60q is %.200q instead of %.200q", name, a[name], b[name]))
	}
	return strings.Join(list[:min(len(list), 5)], ", ")
}
