package tlog

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// Packager writes proof packages of leaves under one head, with the cosignatures that it had when the packager was made.
type Packager struct {
	reader *Reader
	head   Head
	note   string
	keys   []string
}

// Packager reads what all packages of a head have in common. The checkpoint carries the log's own lines and those of
// witnesses that were verified: a package must hold the key of each line in it, and of others the log does not know the key.
func (r *Reader) Packager(ctx context.Context, head Head) (*Packager, error) {
	keys, err := r.signersOf(ctx, head)
	if err != nil {
		return nil, err
	}
	note, witnesses, err := r.cosignedNote(ctx, head)
	if err != nil {
		return nil, err
	}
	return &Packager{reader: r, head: head, note: note, keys: append(keys, witnesses...)}, nil
}

// Package writes the proof package of a leaf that the head covers: the file that package verify of the SDK reads. The leaf
// is hashed again and its proof verified first, so that what goes out verifies; ErrCorrupt if the stored leaf is not the
// one that was sealed.
func (p *Packager) Package(ctx context.Context, leafIndex int64, leaf []byte) ([]byte, error) {
	path, err := p.reader.InclusionProof(ctx, leafIndex, p.head.Size)
	if err != nil {
		return nil, err
	}
	hash := merkle.LeafHash(leaf)
	if err := merkle.VerifyInclusion(leafIndex, p.head.Size, hash, path, p.head.Root); err != nil {
		return nil, fmt.Errorf("%w: leaf %d is not in the tree of %d leaves that was signed: %w", ErrCorrupt, leafIndex, p.head.Size, err)
	}
	attempt, err := verify.DescribeLeaf(leaf)
	if err != nil {
		return nil, fmt.Errorf("describe leaf %d: %w", leafIndex, err)
	}
	document := verify.Package{
		Format:     verify.Format,
		Origin:     p.reader.origin,
		LogID:      strconv.FormatInt(int64(p.reader.LogID()), 10),
		LeafIndex:  leafIndex,
		TreeSize:   p.head.Size,
		Leaf:       hex.EncodeToString(leaf),
		LeafHash:   hash.String(),
		AuditPath:  make([]string, len(path)),
		RootHash:   p.head.Root.String(),
		Checkpoint: p.note,
		PublicKeys: p.keys,
		Attempt:    attempt,
	}
	for i := range path {
		document.AuditPath[i] = path[i].String()
	}
	return document.Encode()
}

// signersOf returns the keys of the log that have signed a head. Those of other times are left out: a package has a bound on
// keys, and a log changes its key for as long as it lives.
func (r *Reader) signersOf(ctx context.Context, head Head) ([]string, error) {
	keys, err := r.Keys(ctx)
	if err != nil {
		return nil, err
	}
	var texts []string
	for _, key := range keys {
		if _, _, err := checkpoint.Open(head.Note, r.origin, key); err != nil {
			continue
		}
		text, err := checkpoint.VerifierKey(r.origin, key)
		if err != nil {
			return nil, err
		}
		texts = append(texts, text)
	}
	if len(texts) == 0 {
		return nil, fmt.Errorf("%w: no key of the log has signed the head of tree size %d", ErrCorrupt, head.Size)
	}
	return texts, nil
}

// cosignedNote returns a head's note with the verified lines of witnesses, and their keys.
func (r *Reader) cosignedNote(ctx context.Context, head Head) (note string, keys []string, err error) {
	rows, err := r.tiles.queries.CosignaturesOfHeads(ctx, r.tiles.db, r.tiles.logID, []int64{head.Size})
	if err != nil {
		return "", nil, fmt.Errorf("read cosignatures of tree size %d: %w", head.Size, err)
	}
	note = head.Note
	for _, row := range rows {
		if row.VerifierKey != "" {
			note += row.Line + "\n"
			keys = append(keys, row.VerifierKey)
		}
	}
	return note, keys, nil
}
