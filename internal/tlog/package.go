package tlog

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// packageFormat names the version of the format. A verifier refuses what it does not know.
const packageFormat = "kapsel-proof/v1"

// proofPackage is everything that is needed to check one leaf offline. Bytes are in lower-case hex.
type proofPackage struct {
	Format     string          `json:"format"`
	Origin     string          `json:"origin"`
	LogID      int32           `json:"log_id"`
	LeafIndex  int64           `json:"leaf_index"`
	TreeSize   int64           `json:"tree_size"`
	Leaf       string          `json:"leaf"`
	LeafHash   string          `json:"leaf_hash"`
	AuditPath  []string        `json:"audit_path"`
	RootHash   string          `json:"root_hash"`
	Checkpoint string          `json:"checkpoint"`  // the signed note, cosignatures included
	PublicKeys []string        `json:"public_keys"` // verifier key texts; a verifier trusts only those that it was given
	Attempt    json.RawMessage `json:"attempt"`     // the leaf decoded, for people
}

// DescribeLeaf decodes a leaf to JSON for people. A verifier does the same and refuses a package whose description differs.
type DescribeLeaf func(leaf []byte) (json.RawMessage, error)

// Package writes the proof package (JSON) of a leaf under a head that covers it. The leaf is hashed again and the proof is
// verified first, so what goes out verifies; ErrCorrupt if the stored leaf is not the one that was sealed.
func (r *Reader) Package(ctx context.Context, leafIndex int64, leaf []byte, head Head, describe DescribeLeaf) ([]byte, error) {
	path, err := r.InclusionProof(ctx, leafIndex, head.Size)
	if err != nil {
		return nil, err
	}
	hash := merkle.LeafHash(leaf)
	if err := merkle.VerifyInclusion(leafIndex, head.Size, hash, path, head.Root); err != nil {
		return nil, fmt.Errorf("%w: leaf %d is not in the tree of %d leaves that was signed: %w", ErrCorrupt, leafIndex, head.Size, err)
	}
	note, err := r.SignedNote(ctx, head)
	if err != nil {
		return nil, err
	}
	keys, err := r.VerifierKeys(ctx)
	if err != nil {
		return nil, err
	}
	attempt, err := describe(leaf)
	if err != nil {
		return nil, fmt.Errorf("describe leaf %d: %w", leafIndex, err)
	}
	p := proofPackage{
		Format: packageFormat, Origin: r.origin, LogID: r.LogID(),
		LeafIndex: leafIndex, TreeSize: head.Size,
		Leaf: hex.EncodeToString(leaf), LeafHash: hash.String(),
		AuditPath: make([]string, len(path)), RootHash: head.Root.String(),
		Checkpoint: note, PublicKeys: keys, Attempt: attempt,
	}
	for i := range path {
		p.AuditPath[i] = path[i].String()
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write proof package of leaf %d: %w", leafIndex, err)
	}
	return append(text, '\n'), nil
}
