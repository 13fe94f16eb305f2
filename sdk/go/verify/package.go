package verify

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Format is the value of a package's field "format".
const Format = "kapsel-proof/v1"

// Bounds of a package. They are far above what a log writes, and keep what a hostile file can cost small.
const (
	MaxPackageBytes = 1 << 20
	maxLeafBytes    = 64 << 10
	maxNoteBytes    = 256 << 10 // a checkpoint with dozens of post-quantum cosignatures
	maxOriginBytes  = 255
	maxLogIDBytes   = 64
	maxPathHashes   = 64
	maxKeys         = 64
	maxKeyBytes     = 4 << 10
	maxNesting      = 8 // the attempt's lists are at 3
	// Largest integer that every reader of JSON takes exactly.
	maxInteger = 1<<53 - 1
	hashBytes  = 32
)

// Package is a proof package: everything that is needed to check one leaf offline. Hashes and bytes are lower-case hex.
type Package struct {
	// Format is "kapsel-proof/v1".
	Format string `json:"format"`
	// Origin is the log's name: the first line of its checkpoints, and the name of its key.
	Origin string `json:"origin"`
	// LogID is the log's id, as in /log/{log_id}/. It is the last path segment of the origin.
	LogID string `json:"log_id"`
	// LeafIndex is the leaf's place in the log, from 0.
	LeafIndex int64 `json:"leaf_index"`
	// TreeSize is the number of leaves under the root hash.
	TreeSize int64 `json:"tree_size"`
	// Leaf is the exact bytes that were hashed: a kapsel.leaf.v1.Leaf.
	Leaf string `json:"leaf"`
	// LeafHash is SHA-256(0x00 || leaf).
	LeafHash string `json:"leaf_hash"`
	// AuditPath leads from the leaf to the root, the leaf's sibling first. At most 64 hashes.
	AuditPath []string `json:"audit_path"`
	// RootHash is the root over the tree.
	RootHash string `json:"root_hash"`
	// Checkpoint is the signed note, verbatim. Each of its signature lines has its key in PublicKeys: a line that nobody
	// can check would be bytes that anybody can change.
	Checkpoint string `json:"checkpoint"`
	// PublicKeys are verifier keys, "<name>+<key id>+<base64>". They are never trusted.
	PublicKeys []string `json:"public_keys"`
	// Attempt is the leaf decoded, for people, as DescribeLeaf makes it.
	Attempt json.RawMessage `json:"attempt"`
}

// Encode returns the package as a file. This is the only encoding that Parse takes: the fields in the order of the
// struct, indented by two spaces, no character escaped that JSON does not demand to be, and a newline at the end. It is
// what JSON.stringify(package, null, 2) + "\n" gives in ECMAScript.
func (p *Package) Encode() ([]byte, error) {
	whole := *p
	if whole.AuditPath == nil {
		whole.AuditPath = []string{}
	}
	if whole.PublicKeys == nil {
		whole.PublicKeys = []string{}
	}
	data, err := encodeJSON(whole, "  ")
	if err != nil {
		return nil, fmt.Errorf("encode proof package: %w", err)
	}
	return data, nil
}

// Parse reads a package and refuses whatever is not in the canonical form of Encode: unknown or repeated fields, upper
// case hex, other white space, data after the end. It proves nothing yet, and takes any JSON that is not nested deeply as the
// field "attempt", which only Verify compares with the leaf. Its error is an *Error.
func Parse(data []byte) (*Package, error) {
	p, _, err := parse(data)
	if err != nil {
		return nil, &Error{Check: CheckFormat, Reason: err.Error()}
	}
	return p, nil
}

// contents are a package's fields as bytes.
type contents struct {
	leaf     []byte
	leafHash []byte
	path     [][]byte
	root     []byte
}

func parse(data []byte) (*Package, *contents, error) {
	if len(data) > MaxPackageBytes {
		return nil, nil, fmt.Errorf("the file has more than %d bytes", MaxPackageBytes)
	}
	if nestsDeeper(data, maxNesting) {
		return nil, nil, fmt.Errorf("not a proof package: lists and objects are nested more than %d deep", maxNesting)
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	p := new(Package)
	if err := decoder.Decode(p); err != nil {
		return nil, nil, fmt.Errorf("not a proof package: %w", err)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, nil, errors.New("there is data after the end of the package")
	}
	c, err := p.contents()
	if err != nil {
		return nil, nil, err
	}
	canonical, err := p.Encode()
	if err != nil {
		return nil, nil, err
	}
	if at := firstDifference(data, canonical); at >= 0 {
		return nil, nil, fmt.Errorf("not in canonical form: differs at byte %d", at)
	}
	return p, c, nil
}

// contents checks each field by itself.
func (p *Package) contents() (*contents, error) {
	switch {
	case p.Format != Format:
		return nil, fmt.Errorf("format is %.40q: want %q", p.Format, Format)
	case p.Origin == "" || len(p.Origin) > maxOriginBytes:
		return nil, fmt.Errorf("origin has %d bytes: want 1 to %d", len(p.Origin), maxOriginBytes)
	case p.LogID == "" || len(p.LogID) > maxLogIDBytes:
		return nil, fmt.Errorf("log_id has %d bytes: want 1 to %d", len(p.LogID), maxLogIDBytes)
	case p.TreeSize < 1 || p.TreeSize > maxInteger:
		return nil, fmt.Errorf("tree_size is %d: want 1 to %d", p.TreeSize, int64(maxInteger))
	case p.LeafIndex < 0 || p.LeafIndex >= p.TreeSize:
		return nil, fmt.Errorf("leaf_index is %d: want 0 to %d, below tree_size", p.LeafIndex, p.TreeSize-1)
	case len(p.Leaf) > 2*maxLeafBytes:
		return nil, fmt.Errorf("leaf has more than %d bytes", maxLeafBytes)
	case len(p.AuditPath) > maxPathHashes:
		return nil, fmt.Errorf("audit_path has %d hashes: at most %d", len(p.AuditPath), maxPathHashes)
	case len(p.Checkpoint) > maxNoteBytes:
		return nil, fmt.Errorf("checkpoint has %d bytes: at most %d", len(p.Checkpoint), maxNoteBytes)
	case len(p.PublicKeys) > maxKeys:
		return nil, fmt.Errorf("public_keys has %d keys: at most %d", len(p.PublicKeys), maxKeys)
	}
	c := &contents{path: make([][]byte, len(p.AuditPath))}
	var err error
	if c.leaf, err = decodeHex(p.Leaf); err != nil {
		return nil, fmt.Errorf("leaf: %w", err)
	}
	if c.leafHash, err = decodeHash(p.LeafHash); err != nil {
		return nil, fmt.Errorf("leaf_hash: %w", err)
	}
	if c.root, err = decodeHash(p.RootHash); err != nil {
		return nil, fmt.Errorf("root_hash: %w", err)
	}
	for i, text := range p.AuditPath {
		if c.path[i], err = decodeHash(text); err != nil {
			return nil, fmt.Errorf("audit_path[%d]: %w", i, err)
		}
	}
	return c, nil
}

func decodeHash(text string) ([]byte, error) {
	if len(text) != 2*hashBytes {
		return nil, fmt.Errorf("has %d characters: want %d", len(text), 2*hashBytes)
	}
	return decodeHex(text)
}

func decodeHex(text string) ([]byte, error) {
	if strings.ContainsAny(text, "ABCDEF") {
		return nil, errors.New("hex is in upper case: want lower case")
	}
	return hex.DecodeString(text)
}

// firstDifference returns the first place at which a and b differ, -1 when they are equal.
func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	if len(a) != len(b) {
		return min(len(a), len(b))
	}
	return -1
}
