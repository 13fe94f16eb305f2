package tlog

import (
	"context"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// Package writes the proof package of a leaf under a head that covers it: the file that package verify of the SDK reads.
// The leaf is hashed again and its proof verified first, so that what goes out verifies; ErrCorrupt if the stored leaf is
// not the one that was sealed. The checkpoint carries the log's own lines and those of witnesses that were verified: a
// package must hold the key of each line in it, and of others the log does not know the key.
func (r *Reader) Package(ctx context.Context, leafIndex int64, leaf []byte, head Head) ([]byte, error) {
	path, err := r.InclusionProof(ctx, leafIndex, head.Size)
	if err != nil {
		return nil, err
	}
	hash := merkle.LeafHash(leaf)
	if err := merkle.VerifyInclusion(leafIndex, head.Size, hash, path, head.Root); err != nil {
		return nil, fmt.Errorf("%w: leaf %d is not in the tree of %d leaves that was signed: %w", ErrCorrupt, leafIndex, head.Size, err)
	}
	keys, err := r.VerifierKeys(ctx)
	if err != nil {
		return nil, err
	}
	attempt, err := verify.DescribeLeaf(leaf)
	if err != nil {
		return nil, fmt.Errorf("describe leaf %d: %w", leafIndex, err)
	}
	note, witnesses, err := r.cosignedNote(ctx, head)
	if err != nil {
		return nil, err
	}
	p := verify.Package{
		Format:     verify.Format,
		Origin:     r.origin,
		LogID:      strconv.FormatInt(int64(r.LogID()), 10),
		LeafIndex:  leafIndex,
		TreeSize:   head.Size,
		Leaf:       hex.EncodeToString(leaf),
		LeafHash:   hash.String(),
		AuditPath:  make([]string, len(path)),
		RootHash:   head.Root.String(),
		Checkpoint: note,
		PublicKeys: append(keys, witnesses...),
		Attempt:    attempt,
	}
	for i := range path {
		p.AuditPath[i] = path[i].String()
	}
	return p.Encode()
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
