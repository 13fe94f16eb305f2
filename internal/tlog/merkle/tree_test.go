package merkle_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"testing"

	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// tileMap keeps tiles as the database does: one row serves every width up to its own.
type tileMap struct {
	tree *merkle.Tree
	rows map[[2]int64][]byte
}

func newTileMap() *tileMap { return &tileMap{new(merkle.Tree), map[[2]int64][]byte{}} }

func (m *tileMap) grow(leaves []merkle.Hash) []merkle.TileData {
	next, tiles := m.tree.Grow(leaves)
	for _, tile := range tiles {
		if len(tile.Hashes) != tile.Width*merkle.HashSize {
			panic(fmt.Sprintf("%s has %d bytes", tile.Path(), len(tile.Hashes)))
		}
		m.rows[[2]int64{int64(tile.Level), tile.Index}] = tile.Hashes
	}
	m.tree = next
	return tiles
}

func (m *tileMap) read(_ context.Context, tiles []merkle.Tile) ([][]byte, error) {
	var hashes [][]byte
	for _, tile := range tiles {
		row := m.rows[[2]int64{int64(tile.Level), tile.Index}]
		if len(row) < tile.Width*merkle.HashSize {
			return nil, fmt.Errorf("%s is not there", tile.Path())
		}
		hashes = append(hashes, row)
	}
	return hashes, nil
}

// oracleTiles lets the other implementation read our tiles, by path and of just the width that it asks for.
type oracleTiles struct{ *tileMap }

func (oracleTiles) Height() int { return merkle.TileHeight }

func (o oracleTiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, tile := range tiles {
		rows, err := o.read(context.Background(), []merkle.Tile{{Level: tile.L, Index: tile.N, Width: tile.W}})
		if err != nil {
			return nil, err
		}
		out = append(out, rows[0][:tile.W*merkle.HashSize])
	}
	return out, nil
}

func (oracleTiles) SaveTiles([]tlog.Tile, [][]byte) {}

func numbered(from, to int) (leaves [][]byte, hashes []merkle.Hash) {
	for i := from; i < to; i++ {
		leaf := binary.BigEndian.AppendUint32([]byte("leaf "), uint32(i))
		leaves, hashes = append(leaves, leaf), append(hashes, merkle.LeafHash(leaf))
	}
	return leaves, hashes
}

func oracleProof(path []merkle.Hash) []tlog.Hash {
	out := make([]tlog.Hash, 0, len(path))
	for _, hash := range path {
		out = append(out, tlog.Hash(hash))
	}
	return out
}

// Every size from 0 to 1,000, grown in random steps: the other implementation gets the same roots from its own storage,
// and the same proofs from our tiles.
func TestTreeEqualsOtherImplementation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		final := rapid.IntRange(0, 1000).Draw(t, "final")
		var stored []tlog.Hash // the other implementation's storage
		storage := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
			var out []tlog.Hash
			for _, i := range indexes {
				out = append(out, stored[i])
			}
			return out, nil
		})
		store := newTileMap()
		sizes := []int64{0}
		roots := map[int64]tlog.Hash{0: tlog.Hash(merkle.EmptyRoot)}
		for size := 0; size < final; {
			step := rapid.OneOf(rapid.IntRange(1, 5), rapid.IntRange(1, 300), rapid.Just(256-size%256)).Draw(t, "step")
			step = min(step, final-size)
			leaves, hashes := numbered(size, size+step)
			for i, leaf := range leaves {
				more, err := tlog.StoredHashes(int64(size+i), leaf, storage)
				if err != nil {
					t.Fatal(err)
				}
				stored = append(stored, more...)
			}
			store.grow(hashes)
			size += step
			want, err := tlog.TreeHash(int64(size), storage)
			if err != nil {
				t.Fatal(err)
			}
			if got := tlog.Hash(store.tree.Root()); got != want {
				t.Fatalf("root of %d leaves: got %v, want %v", size, got, want)
			}
			sizes, roots[int64(size)] = append(sizes, int64(size)), want
		}
		size := int64(final)
		if size == 0 {
			return
		}
		ctx := context.Background()
		reader := tlog.TileHashReader(tlog.Tree{N: size, Hash: roots[size]}, oracleTiles{store})
		index := rapid.Int64Range(0, size-1).Draw(t, "index")
		path, err := merkle.InclusionProof(ctx, index, size, store.read)
		if err != nil {
			t.Fatal(err)
		}
		want, err := tlog.ProveRecord(size, index, reader)
		if err != nil {
			t.Fatalf("other implementation over our tiles: %v", err)
		}
		if got := oracleProof(path); fmt.Sprint(got) != fmt.Sprint([]tlog.Hash(want)) {
			t.Fatalf("inclusion of %d in %d: got %v, want %v", index, size, got, want)
		}
		_, leaf := numbered(int(index), int(index)+1)
		if err := tlog.CheckRecord(oracleProof(path), size, roots[size], index, tlog.Hash(leaf[0])); err != nil {
			t.Fatal(err)
		}
		if err := merkle.VerifyInclusion(index, size, leaf[0], path, store.tree.Root()); err != nil {
			t.Fatal(err)
		}
		from := rapid.SampledFrom(sizes).Draw(t, "from")
		path, err = merkle.ConsistencyProof(ctx, from, size, store.read)
		if err != nil {
			t.Fatal(err)
		}
		if err := merkle.VerifyConsistency(from, size, path, merkle.Hash(roots[from]), store.tree.Root()); err != nil {
			t.Fatal(err)
		}
		if root, err := merkle.RootAt(ctx, from, store.read); err != nil || tlog.Hash(root) != roots[from] {
			t.Fatalf("root at %d from tiles of %d: got %v, %v, want %v", from, size, root, err, roots[from])
		}
		if from == 0 {
			return
		}
		wantTree, err := tlog.ProveTree(size, from, reader)
		if err != nil {
			t.Fatal(err)
		}
		if got := oracleProof(path); fmt.Sprint(got) != fmt.Sprint([]tlog.Hash(wantTree)) {
			t.Fatalf("consistency of %d with %d: got %v, want %v", from, size, got, wantTree)
		}
		if err := tlog.CheckTree(oracleProof(path), size, roots[size], from, roots[from]); err != nil {
			t.Fatal(err)
		}
	})
}

func TestWrongProofsDoNotVerify(t *testing.T) {
	store := newTileMap()
	_, hashes := numbered(0, 600)
	store.grow(hashes)
	ctx := context.Background()
	path, err := merkle.InclusionProof(ctx, 300, 600, store.read)
	if err != nil {
		t.Fatal(err)
	}
	if err := merkle.VerifyInclusion(301, 600, hashes[300], path, store.tree.Root()); err == nil {
		t.Error("a proof of leaf 300 verified leaf 301")
	}
	path[3][0] ^= 1
	if err := merkle.VerifyInclusion(300, 600, hashes[300], path, store.tree.Root()); err == nil {
		t.Error("a flipped bit in the path was not noticed")
	}
	if err := merkle.VerifyConsistency(0, 600, nil, hashes[0], store.tree.Root()); err == nil {
		t.Error("a wrong root of the empty tree was not noticed")
	}
	for _, bad := range [][2]int64{{-1, 600}, {600, 600}, {0, 0}} {
		if _, err := merkle.InclusionProof(ctx, bad[0], bad[1], store.read); err == nil {
			t.Errorf("inclusion of leaf %d in %d leaves: want an error", bad[0], bad[1])
		}
	}
	for _, bad := range [][2]int64{{-1, 600}, {601, 600}} {
		if _, err := merkle.ConsistencyProof(ctx, bad[0], bad[1], store.read); err == nil {
			t.Errorf("consistency of %d with %d leaves: want an error", bad[0], bad[1])
		}
	}
}

func TestTileWidths(t *testing.T) {
	tests := map[int64]map[[2]int64]int{ // (level, index) → width of the last two tiles of each level
		256:    {{0, 0}: 256, {0, 1}: 0, {1, 0}: 1, {1, 1}: 0, {2, 0}: 0},
		70_000: {{0, 272}: 256, {0, 273}: 112, {0, 274}: 0, {1, 0}: 256, {1, 1}: 17, {2, 0}: 1, {2, 1}: 0, {3, 0}: 0},
	}
	for size, want := range tests {
		store := newTileMap()
		_, hashes := numbered(0, int(size))
		grown := map[[2]int64]int{}
		for begin := 0; begin < len(hashes); begin += 999 {
			for _, tile := range store.grow(hashes[begin:min(begin+999, len(hashes))]) {
				grown[[2]int64{int64(tile.Level), tile.Index}] = tile.Width
			}
		}
		for place, width := range want {
			if got := merkle.WidthAt(int(place[0]), place[1], size); got != width {
				t.Errorf("size %d: WidthAt(%d, %d) = %d, want %d", size, place[0], place[1], got, width)
			}
			if got := grown[place]; got != width {
				t.Errorf("size %d: tile %v grew to %d, want %d", size, place, got, width)
			}
		}
		other := map[[2]int64]int{}
		for _, tile := range tlog.NewTiles(merkle.TileHeight, 0, size) {
			other[[2]int64{int64(tile.L), tile.N}] = tile.W
		}
		if !maps.Equal(grown, other) {
			t.Errorf("size %d: other implementation has other tiles: got %d, want %d", size, len(grown), len(other))
		}
	}
}

// Seals add to one tree: growing must not change what an earlier growth gave out.
func TestGrowLeavesTheOldTreeAlone(t *testing.T) {
	_, hashes := numbered(0, 700)
	old, tiles := new(merkle.Tree).Grow(hashes[:300])
	root := old.Root()
	before := fmt.Sprint(tiles)
	one, _ := old.Grow(hashes[300:])
	two, _ := old.Grow(hashes[300:])
	if one.Root() != two.Root() || old.Root() != root || fmt.Sprint(tiles) != before {
		t.Error("growing a tree twice changed it")
	}
	if _, err := merkle.NewTree(300, nil); err == nil {
		t.Error("a tree without its edge tiles: want an error")
	}
}

func BenchmarkGrow10000Leaves(b *testing.B) {
	leaf := make([]byte, 600) // an attempt's leaf has 400 to 600 bytes
	_, hashes := numbered(0, 123_456)
	tree, _ := new(merkle.Tree).Grow(hashes)
	b.ReportAllocs()
	for b.Loop() {
		hashes := make([]merkle.Hash, 10_000)
		for i := range hashes {
			binary.BigEndian.PutUint32(leaf, uint32(i))
			hashes[i] = merkle.LeafHash(leaf)
		}
		next, _ := tree.Grow(hashes)
		next.Root()
	}
}

// Each size from 0 to 1,000, one leaf at a time, with every audit path of every 97th.
func TestEachSizeEqualsOtherImplementation(t *testing.T) {
	var stored []tlog.Hash
	storage := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var out []tlog.Hash
		for _, i := range indexes {
			out = append(out, stored[i])
		}
		return out, nil
	})
	store := newTileMap()
	leaves, hashes := numbered(0, 1000)
	for size := int64(0); size <= 1000; size++ {
		want := tlog.Hash(merkle.EmptyRoot)
		var err error
		if size > 0 {
			if want, err = tlog.TreeHash(size, storage); err != nil {
				t.Fatal(err)
			}
		}
		if got := tlog.Hash(store.tree.Root()); got != want {
			t.Fatalf("root of %d leaves: got %v, want %v", size, got, want)
		}
		if size%97 == 0 || size == 256 || size == 257 {
			for index := range size {
				path, err := merkle.InclusionProof(context.Background(), index, size, store.read)
				if err != nil {
					t.Fatal(err)
				}
				if err := tlog.CheckRecord(oracleProof(path), size, want, index, tlog.Hash(hashes[index])); err != nil {
					t.Fatalf("leaf %d of %d: %v", index, size, err)
				}
				if path, err = merkle.ConsistencyProof(context.Background(), index, size, store.read); err != nil {
					t.Fatal(err)
				}
				from, err := merkle.RootAt(context.Background(), index, store.read)
				if err != nil {
					t.Fatal(err)
				}
				if err := merkle.VerifyConsistency(index, size, path, from, merkle.Hash(want)); err != nil {
					t.Fatalf("tree %d in %d: %v", index, size, err)
				}
			}
		}
		if size < 1000 {
			more, err := tlog.StoredHashes(size, leaves[size], storage)
			if err != nil {
				t.Fatal(err)
			}
			stored = append(stored, more...)
			store.grow(hashes[size : size+1])
		}
	}
}
