package tlog

import (
	"errors"
	"fmt"
	"time"

	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

var (
	// ErrRefused: the sealer does not sign, because the database, the key's high-water mark and the published heads do not
	// fit together. Trying again does not help; the error says what may.
	ErrRefused = errors.New("refused to sign")
	// ErrNotLeader: another node holds the sealer's lease.
	ErrNotLeader = errors.New("another node seals this log")
	// ErrNotFound: there is no such head, or no published head covers the leaf or tile.
	ErrNotFound = errors.New("not in the published log")
	// ErrCorrupt: stored leaves, tiles and heads contradict each other.
	ErrCorrupt = errors.New("log is corrupt")
)

// Head is a published tree head.
type Head struct {
	Size     int64       // number of leaves
	Root     merkle.Hash // root over them
	SignedAt time.Time   // whole seconds, as in the note
	Note     string      // the signed checkpoint, without witnesses' lines
}

// newHead makes a Head of a row of tree_heads.
func newHead(size int64, root []byte, signedAt time.Time, note string) (Head, error) {
	if len(root) != merkle.HashSize {
		return Head{}, fmt.Errorf("%w: the root of tree size %d has %d bytes", ErrCorrupt, size, len(root))
	}
	return Head{Size: size, Root: merkle.Hash(root), SignedAt: signedAt.UTC(), Note: note}, nil
}

func (h Head) checkpoint(origin string) checkpoint.Checkpoint {
	return checkpoint.Checkpoint{Origin: origin, Size: h.Size, Root: h.Root}
}
