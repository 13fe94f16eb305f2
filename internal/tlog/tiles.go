package tlog

import (
	"context"
	"fmt"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/store"
)

// tileTable reads and writes the tiles of one log in the database.
type tileTable struct {
	queries *store.Queries
	db      store.DBTX
	logID   int32
}

// tileID is a tile of any width: what the table has one row for.
type tileID struct {
	level int
	index int64
}

// read is a merkle.TileReader. A tile that is missing or too narrow is ErrCorrupt: it is only asked for what a published
// head covers, or what was just written.
func (t tileTable) read(ctx context.Context, tiles []merkle.Tile) ([][]byte, error) {
	levels, indexes := make([]int16, len(tiles)), make([]int64, len(tiles))
	for i, tile := range tiles {
		levels[i], indexes[i] = int16(tile.Level), tile.Index
	}
	rows, err := t.queries.GetTiles(ctx, t.db, levels, indexes, t.logID)
	if err != nil {
		return nil, fmt.Errorf("read %d tiles: %w", len(tiles), err)
	}
	found := make(map[tileID][]byte, len(rows))
	for _, row := range rows {
		found[tileID{int(row.Level), row.TileIndex}] = row.Hashes
	}
	hashes := make([][]byte, len(tiles))
	for i, tile := range tiles {
		hashes[i] = found[tileID{tile.Level, tile.Index}]
		if len(hashes[i]) < tile.Width*merkle.HashSize {
			return nil, fmt.Errorf("%w: %s has %d of %d bytes", ErrCorrupt, tile.Path(), len(hashes[i]), tile.Width*merkle.HashSize)
		}
	}
	return hashes, nil
}

// write commits tiles that are new or have grown.
func (t tileTable) write(ctx context.Context, tiles []merkle.TileData) error {
	put := store.PutTilesParams{LogID: t.logID}
	for _, tile := range tiles {
		put.Levels = append(put.Levels, int16(tile.Level))
		put.TileIndexes = append(put.TileIndexes, tile.Index)
		put.Hashes = append(put.Hashes, tile.Hashes)
	}
	if err := t.queries.PutTiles(ctx, t.db, put); err != nil {
		return fmt.Errorf("write %d tiles: %w", len(tiles), err)
	}
	return nil
}
