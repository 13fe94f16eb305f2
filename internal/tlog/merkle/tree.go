package merkle

import "fmt"

// Tree is a tree's size and right edge: all that is needed to compute its root and to grow it. It does not change; Grow
// returns another one. The zero value is the empty tree.
type Tree struct {
	size int64
	edge [levels][]byte // the hashes of the partial tile of each level, one after the other
}

// TileData is a tile and its hashes, one after the other: Tile.Width times HashSize bytes.
type TileData struct {
	Tile
	Hashes []byte
}

// NewTree makes the tree of size leaves from its edge tiles: hashes[i] are those of EdgeTiles(size)[i], and may be longer
// than the tile is wide, as those of a tile that has grown since.
func NewTree(size int64, hashes [][]byte) (*Tree, error) {
	edge := EdgeTiles(size)
	if len(hashes) != len(edge) {
		return nil, fmt.Errorf("a tree of %d leaves has %d edge tiles, not %d", size, len(edge), len(hashes))
	}
	tree := &Tree{size: size}
	for i, tile := range edge {
		want := tile.Width * HashSize
		if len(hashes[i]) < want {
			return nil, fmt.Errorf("%s has %d bytes: want at least %d", tile.Path(), len(hashes[i]), want)
		}
		tree.edge[tile.Level] = hashes[i][:want:want]
	}
	return tree, nil
}

// Size returns the number of leaves.
func (t *Tree) Size() int64 { return t.size }

// Root returns the root hash.
func (t *Tree) Root() Hash {
	if t.size == 0 {
		return EmptyRoot
	}
	// The perfect subtrees, from the right: within a level's edge they are the binary digits of its width. Each one
	// becomes the left neighbour of all that is on its right.
	var root Hash
	first := true
	for _, row := range t.edge {
		for end := len(row) / HashSize; end > 0; end &= end - 1 {
			begin := end & (end - 1)
			subtree := perfectRoot(row[begin*HashSize : end*HashSize])
			if first {
				root, first = subtree, false
			} else {
				root = NodeHash(subtree, root)
			}
		}
	}
	return root
}

// Grow returns the tree with leaf hashes added, and every tile that is new or wider in it.
func (t *Tree) Grow(leaves []Hash) (*Tree, []TileData) {
	next := &Tree{size: t.size}
	for level, row := range t.edge {
		if len(row) > 0 {
			next.edge[level] = append(make([]byte, 0, TileBytes), row...)
		}
	}
	tiles := make([]TileData, 0, len(leaves)/TileWidth+levels)
	for i := range leaves {
		next.size++
		tiles = next.push(0, leaves[i], tiles)
	}
	for level, row := range next.edge {
		if len(row) > 0 && next.size>>(TileHeight*level) != t.size>>(TileHeight*level) {
			tile := Tile{Level: level, Index: next.size >> (TileHeight * (level + 1)), Width: len(row) / HashSize}
			tiles = append(tiles, TileData{Tile: tile, Hashes: row[:len(row):len(row)]})
		}
	}
	return next, tiles
}

// push adds a hash to the edge of a level. A tile that it fills goes to tiles, and its root to the level above.
func (t *Tree) push(level int, hash Hash, tiles []TileData) []TileData {
	row := t.edge[level]
	if row == nil {
		row = make([]byte, 0, TileBytes)
	}
	row = append(row, hash[:]...)
	if len(row) < TileBytes {
		t.edge[level] = row
		return tiles
	}
	t.edge[level] = nil
	tile := Tile{Level: level, Index: t.size>>(TileHeight*(level+1)) - 1, Width: TileWidth}
	return t.push(level+1, perfectRoot(row), append(tiles, TileData{Tile: tile, Hashes: row}))
}
