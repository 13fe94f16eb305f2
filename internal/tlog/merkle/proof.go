package merkle

import (
	"context"
	"fmt"

	"github.com/transparency-dev/merkle/compact"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
)

// TileReader returns the hashes of tiles, in the order asked for. Each answer holds at least Width hashes; those of a
// tile that has grown since may hold more.
type TileReader func(ctx context.Context, tiles []Tile) ([][]byte, error)

// RootAt computes the root of the tree of size leaves from its edge tiles.
func RootAt(ctx context.Context, size int64, read TileReader) (Hash, error) {
	tree, err := ReadTree(ctx, size, read)
	if err != nil {
		return Hash{}, err
	}
	return tree.Root(), nil
}

// ReadTree reads the tree of size leaves from its edge tiles.
func ReadTree(ctx context.Context, size int64, read TileReader) (*Tree, error) {
	edge := EdgeTiles(size)
	if len(edge) == 0 {
		return &Tree{}, nil
	}
	hashes, err := read(ctx, edge)
	if err != nil {
		return nil, err
	}
	return NewTree(size, hashes)
}

// InclusionProof returns the audit path of leaf index in the tree of size leaves, the leaf's sibling first (RFC 6962
// section 2.1.1).
func InclusionProof(ctx context.Context, index, size int64, read TileReader) ([]Hash, error) {
	if index < 0 || index >= size {
		return nil, fmt.Errorf("leaf %d is not in a tree of %d leaves", index, size)
	}
	nodes, err := proof.Inclusion(uint64(index), uint64(size))
	if err != nil {
		return nil, fmt.Errorf("find nodes of inclusion proof: %w", err)
	}
	return readProof(ctx, nodes, size, read)
}

// ConsistencyProof returns the proof that the first from leaves of the tree of to leaves are the tree of from leaves
// (RFC 6962 section 2.1.2). It is empty when from is 0 or equals to.
func ConsistencyProof(ctx context.Context, from, to int64, read TileReader) ([]Hash, error) {
	if from < 0 || from > to {
		return nil, fmt.Errorf("a tree of %d leaves does not grow into one of %d", from, to)
	}
	nodes, err := proof.Consistency(uint64(from), uint64(to))
	if err != nil {
		return nil, fmt.Errorf("find nodes of consistency proof: %w", err)
	}
	return readProof(ctx, nodes, to, read)
}

// readProof reads the nodes of a proof from their tiles, each tile once.
func readProof(ctx context.Context, nodes proof.Nodes, size int64, read TileReader) ([]Hash, error) {
	if len(nodes.IDs) == 0 {
		return nil, nil
	}
	var tiles []Tile
	place := make(map[Tile]int, len(nodes.IDs))
	for _, id := range nodes.IDs {
		tile, _ := tileOf(id, size)
		if _, ok := place[tile]; !ok {
			place[tile] = len(tiles)
			tiles = append(tiles, tile)
		}
	}
	data, err := read(ctx, tiles)
	if err != nil {
		return nil, err
	}
	hashes := make([][]byte, len(nodes.IDs))
	for i, id := range nodes.IDs {
		tile, first := tileOf(id, size)
		row, begin, end := data[place[tile]], first*HashSize, (first+1<<(id.Level%TileHeight))*HashSize
		if end > len(row) {
			return nil, fmt.Errorf("%s has %d bytes: want at least %d", tile.Path(), len(row), end)
		}
		hash := perfectRoot(row[begin:end])
		hashes[i] = hash[:]
	}
	folded, err := nodes.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
	if err != nil {
		return nil, fmt.Errorf("fold nodes of proof: %w", err)
	}
	path := make([]Hash, len(folded))
	for i := range folded {
		path[i] = Hash(folded[i])
	}
	return path, nil
}

// tileOf returns the tile of a tree of size leaves that a perfect node is computed from, and the node's first hash there.
func tileOf(id compact.NodeID, size int64) (tile Tile, first int) {
	level := int(id.Level / TileHeight)
	place := int64(id.Index << (id.Level % TileHeight))
	index := place >> TileHeight
	return Tile{Level: level, Index: index, Width: WidthAt(level, index, size)}, int(place & (TileWidth - 1))
}

// VerifyInclusion checks an audit path as a client does.
func VerifyInclusion(index, size int64, leaf Hash, path []Hash, root Hash) error {
	return proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(index), uint64(size), leaf[:], rows(path), root[:])
}

// VerifyConsistency checks a consistency proof as a client does. The empty tree is a prefix of every tree.
func VerifyConsistency(from, to int64, path []Hash, fromRoot, toRoot Hash) error {
	if from == 0 {
		if fromRoot != EmptyRoot || len(path) != 0 {
			return fmt.Errorf("the tree without leaves has root %s and an empty proof", EmptyRoot)
		}
		return nil
	}
	return proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(from), uint64(to), rows(path), fromRoot[:], toRoot[:])
}

func rows(hashes []Hash) [][]byte {
	out := make([][]byte, len(hashes))
	for i := range hashes {
		out[i] = hashes[i][:]
	}
	return out
}
