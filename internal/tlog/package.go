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
// not the one that was sealed. The checkpoint carries the log's own lines only: a package must hold the key of each line in
// it, and the log does not know those of witnesses.
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
		Checkpoint: head.Note,
		PublicKeys: keys,
		Attempt:    attempt,
	}
	for i := range path {
		p.AuditPath[i] = path[i].String()
	}
	return p.Encode()
}
