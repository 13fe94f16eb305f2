package verify

import (
	"fmt"
	"slices"
	"time"
)

// Head is a checkpoint that a trusted key has signed: what a log commits to at one size.
type Head struct {
	// Origin is the log's name.
	Origin string
	// Size is the number of leaves.
	Size int64
	// Root is the root hash over them.
	Root [hashBytes]byte
	// Time is when the log signed it, by its own clock, to the second. Zero if the checkpoint does not say.
	Time time.Time
	// Key is the trusted key that signed it.
	Key string
	// Note is the checkpoint, verbatim.
	Note string
}

// OpenHead reads a checkpoint (C2SP tlog-checkpoint) and checks its signature: one of the trusted keys, which must be
// named like the log, has signed it. Lines of other keys say nothing here, and are passed over. The error is an *Error,
// unless a trusted key is malformed.
func OpenHead(signed string, trustedKeys []string) (*Head, error) {
	keys, err := parseKeys(trustedKeys)
	if err != nil {
		return nil, fmt.Errorf("trusted %w", err)
	}
	h, lines, err := openCheckpoint(signed, newRing(keys...))
	if err != nil {
		return nil, &Error{Check: CheckCheckpoint, Reason: "the checkpoint " + err.Error()}
	}
	at := slices.IndexFunc(keys, func(k key) bool { return k.name == h.origin && find(lines, k, typeEd25519) != nil })
	if at < 0 {
		return nil, &Error{Check: CheckSignature, Reason: fmt.Sprintf("no trusted key has signed the checkpoint as %.300q", h.origin)}
	}
	opened := &Head{Origin: h.origin, Size: h.size, Root: h.root, Key: keys[at].text(), Note: signed}
	if l := find(lines, keys[at], typeCosignature); l != nil {
		opened.Time = l.at
	}
	return opened, nil
}
