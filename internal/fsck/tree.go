package fsck

import (
	"bytes"
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// tree grows with the leaves, and compares what it comes to with the stored tiles and the published heads.
type tree struct {
	*run
	edge    *merkle.Tree
	checks  *logChecks
	pending []head                  // those that the tree has not reached yet
	passed  map[int64][]byte        // roots of the heads that it has
	partial map[int]merkle.TileData // the last tile of each level, while it is not full
}

// grow adds leaf hashes, stops at each head's size, and compares.
func (t *tree) grow(ctx context.Context, hashes []merkle.Hash) error {
	t.reach()
	var full []merkle.TileData
	for len(hashes) > 0 {
		n := int64(len(hashes))
		if len(t.pending) > 0 {
			n = min(n, t.pending[0].size-t.edge.Size())
		}
		next, tiles := t.edge.Grow(hashes[:n])
		t.edge, hashes = next, hashes[n:]
		for _, tile := range tiles {
			if tile.Full() {
				full = append(full, tile)
				delete(t.partial, tile.Level)
			} else {
				if t.partial == nil {
					t.partial = make(map[int]merkle.TileData)
				}
				t.partial[tile.Level] = tile
			}
		}
		t.reach()
	}
	return t.compare(ctx, full)
}

// reach compares the heads of the tree's present size.
func (t *tree) reach() {
	for len(t.pending) > 0 && t.pending[0].size <= t.edge.Size() {
		h := t.pending[0]
		t.pending = t.pending[1:]
		if root := t.edge.Root(); !bytes.Equal(root[:], h.root) {
			t.checks.heads.violate(treeName(h.size), "has root %x, but its leaves have root %s", h.root, root)
		}
		if t.HighWaterFile != "" {
			if t.passed == nil {
				t.passed = make(map[int64][]byte)
			}
			t.passed[h.size] = h.root
		}
	}
}

// root is that of a published head.
func (t *tree) root(size int64) ([]byte, bool) {
	root, found := t.passed[size]
	return root, found
}

// finish compares the right edge, and what no leaf was there for.
func (t *tree) finish(ctx context.Context, sealed int64) error {
	t.reach()
	edge := make([]merkle.TileData, 0, len(t.partial))
	for _, tile := range t.partial {
		edge = append(edge, tile)
	}
	if t.edge.Size() != sealed {
		t.checks.heads.violate(treeName(sealed), "was signed, but only %d leaves are there to compute its root", t.edge.Size())
	}
	return t.compare(ctx, edge)
}

// compare looks the tiles up in the database.
func (t *tree) compare(ctx context.Context, tiles []merkle.TileData) error {
	if len(tiles) == 0 {
		return nil
	}
	stored, err := t.storedTiles(ctx, tiles)
	if err != nil {
		return err
	}
	for i, tile := range tiles {
		t.checks.tiles.Examined++
		switch have := stored[i]; {
		case len(have) < len(tile.Hashes):
			t.checks.tiles.violate(tile.Path(), "has %d of %d hashes", len(have)/merkle.HashSize, tile.Width)
		case !bytes.Equal(have[:len(tile.Hashes)], tile.Hashes):
			t.checks.tiles.violate(tile.Path(), "is not what the leaves give")
		}
	}
	return nil
}

// storedTiles reads tiles; one that is not there is nil.
func (r *run) storedTiles(ctx context.Context, tiles []merkle.TileData) ([][]byte, error) {
	levels, indexes := make([]int16, len(tiles)), make([]int64, len(tiles))
	for i, tile := range tiles {
		levels[i], indexes[i] = int16(tile.Level), tile.Index
	}
	rows, err := r.tx.Query(ctx, `select t.hashes
		from rows from (unnest($2::smallint[]), unnest($3::bigint[])) with ordinality as u(level, tile_index, position)
		left join tiles t on t.log_id = $1 and t.level = u.level and t.tile_index = u.tile_index
		order by u.position`, r.LogID, levels, indexes)
	if err != nil {
		return nil, err
	}
	stored, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		return nil, fmt.Errorf("read %d tiles: %w", len(tiles), err)
	}
	return stored, nil
}

// storedLeafHashes are the hashes of the leaves from first up to stop, as the tiles have them: for leaves that retention
// has dropped, and in place of those that are missing. A hash that is not there is zero. first is a multiple of the
// width of a tile.
func (r *run) storedLeafHashes(ctx context.Context, first, stop int64) ([]merkle.Hash, error) {
	var tiles []merkle.TileData
	for at := first; at < stop; at += merkle.TileWidth {
		tiles = append(tiles, merkle.TileData{Tile: merkle.Tile{Index: at / merkle.TileWidth}})
	}
	stored, err := r.storedTiles(ctx, tiles)
	if err != nil {
		return nil, err
	}
	hashes := make([]merkle.Hash, stop-first)
	for i := range hashes {
		row, place := stored[i/merkle.TileWidth], i%merkle.TileWidth*merkle.HashSize
		if place+merkle.HashSize <= len(row) {
			hashes[i] = merkle.Hash(row[place : place+merkle.HashSize])
		}
	}
	return hashes, nil
}
