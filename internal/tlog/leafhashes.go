package tlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/store"
)

// Leaves are found by their hash in blocks of as many leaves as an entry's place can name. A block's entries are sorted
// into buckets by the first byte of the hash, and hold the bytes after it (table leaf_hashes).
const (
	blockLeaves  = 1 << 16
	buckets      = 1 << 8
	prefixBytes  = 4
	entryBytes   = prefixBytes + 2
	tilesInBlock = blockLeaves / merkle.TileWidth

	// maxFoundBlocks bounds what a hash can make a reader look at. That two leaves have 5 bytes in common is no surprise in a
	// log of millions, and three would be.
	maxFoundBlocks = 16
	// maxUnindexed bounds the leaves that are looked through one by one: those of the last block, and of what the indexer is
	// behind.
	maxUnindexed = 4 * blockLeaves
	// scanTiles is how many tiles are looked through at a time: 512 KiB.
	scanTiles = 64

	indexRetry = 5 * time.Second
)

// ErrIndexing: leaves cannot be found by their hash yet, as the index is still being made.
var ErrIndexing = errors.New("the index of leaf hashes is being made")

// LeafIndexer writes the index of leaf hashes, block by block, from tiles under a published head. It is not the sealer's
// work, and nothing waits for it. Each node may run one: all write the same.
type LeafIndexer struct {
	reader *Reader
	heads  *Heads
	log    *slog.Logger
}

// NewLeafIndexer makes an indexer of the reader's log, whose database must be the engine's.
func NewLeafIndexer(reader *Reader, heads *Heads, log *slog.Logger) *LeafIndexer {
	return &LeafIndexer{reader: reader, heads: heads, log: log}
}

// Run indexes each block when a head covers it, until ctx ends.
func (x *LeafIndexer) Run(ctx context.Context) error {
	for {
		err := x.next(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			continue
		}
		x.log.WarnContext(ctx, "leaf hashes not indexed, trying again", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(indexRetry):
		}
	}
}

// next waits for the next block, and indexes it.
func (x *LeafIndexer) next(ctx context.Context) error {
	t := x.reader.tiles
	block, err := t.queries.LeafHashBlocks(ctx, t.db, t.logID)
	if err != nil {
		return fmt.Errorf("read how far leaf hashes are indexed: %w", err)
	}
	if _, err := x.heads.Wait(ctx, (block+1)*blockLeaves); err != nil {
		return err
	}
	hashes := make([]byte, 0, blockLeaves*merkle.HashSize)
	for first := block * tilesInBlock; first < (block+1)*tilesInBlock; first += scanTiles {
		tiles := make([]merkle.Tile, scanTiles)
		for i := range tiles {
			tiles[i] = merkle.Tile{Index: first + int64(i), Width: merkle.TileWidth}
		}
		rows, err := t.read(ctx, tiles) // past the cache, which is for what is asked for
		if err != nil {
			return err
		}
		for _, row := range rows {
			hashes = append(hashes, row[:merkle.TileBytes]...)
		}
	}
	put := store.PutLeafHashesParams{LogID: t.logID, Block: block, Entries: sortIntoBuckets(hashes)}
	for bucket := range buckets {
		put.Buckets = append(put.Buckets, int16(bucket))
	}
	if err := t.queries.PutLeafHashes(ctx, t.db, put); err != nil {
		return fmt.Errorf("index the leaf hashes of block %d: %w", block, err)
	}
	return nil
}

// sortIntoBuckets makes the entries of a block of leaf hashes.
func sortIntoBuckets(hashes []byte) [][]byte {
	entries := make([][]byte, buckets)
	for i := range entries {
		entries[i] = make([]byte, 0, 2*len(hashes)/merkle.HashSize/buckets*entryBytes)
	}
	for place := range len(hashes) / merkle.HashSize {
		hash := hashes[place*merkle.HashSize:]
		bucket := hash[0]
		entries[bucket] = append(entries[bucket], hash[1:1+prefixBytes]...)
		entries[bucket] = binary.BigEndian.AppendUint16(entries[bucket], uint16(place))
	}
	return entries
}

// FindLeaf returns the index of the leaf with this hash, if a published head covers it.
func (r *Reader) FindLeaf(ctx context.Context, hash merkle.Hash) (int64, error) {
	head, err := r.Head(ctx)
	if err != nil {
		return 0, err
	}
	rows, err := r.tiles.queries.FindLeafHash(ctx, r.tiles.db, store.FindLeafHashParams{
		LogID: r.LogID(), Bucket: int16(hash[0]), Bytes: hash[1 : 1+prefixBytes], MaxBlocks: maxFoundBlocks,
	})
	if err != nil {
		return 0, fmt.Errorf("look up leaf hash: %w", err)
	}
	for _, row := range rows {
		for entry := range slices.Chunk(row.Entries, entryBytes) {
			if !bytes.HasPrefix(entry, hash[1:1+prefixBytes]) {
				continue
			}
			index := row.Block*blockLeaves + int64(binary.BigEndian.Uint16(entry[prefixBytes:]))
			if found, err := r.leafIs(ctx, index, head.Size, hash); err != nil || found {
				return index, err
			}
		}
	}
	return r.scanForLeaf(ctx, head.Size, hash)
}

// leafIs reports whether the leaf at an index has this hash.
func (r *Reader) leafIs(ctx context.Context, index, size int64, hash merkle.Hash) (bool, error) {
	got, err := r.LeafHash(ctx, index, size)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return got == hash, err
}

// LeafHash returns the hash of a leaf in the published tree of size leaves.
func (r *Reader) LeafHash(ctx context.Context, index, size int64) (merkle.Hash, error) {
	tile := merkle.Tile{Index: index / merkle.TileWidth}
	tile.Width = merkle.WidthAt(0, tile.Index, size)
	if index < 0 || index >= size {
		return merkle.Hash{}, fmt.Errorf("leaf %d in tree size %d: %w", index, size, ErrNotFound)
	}
	row, err := r.Tile(ctx, tile)
	if err != nil {
		return merkle.Hash{}, err
	}
	return merkle.Hash(row[index%merkle.TileWidth*merkle.HashSize:][:merkle.HashSize]), nil
}

// scanForLeaf looks through the leaves that are not indexed yet, the latest first.
func (r *Reader) scanForLeaf(ctx context.Context, size int64, hash merkle.Hash) (int64, error) {
	blocks, err := r.tiles.queries.LeafHashBlocks(ctx, r.tiles.db, r.LogID())
	if err != nil {
		return 0, fmt.Errorf("read how far leaf hashes are indexed: %w", err)
	}
	if size-blocks*blockLeaves > maxUnindexed {
		return 0, ErrIndexing
	}
	first := blocks * tilesInBlock
	for end := (size + merkle.TileWidth - 1) / merkle.TileWidth; end > first; end -= scanTiles {
		var tiles []merkle.Tile
		for index := max(first, end-scanTiles); index < end; index++ {
			tiles = append(tiles, merkle.Tile{Index: index, Width: merkle.WidthAt(0, index, size)})
		}
		rows, err := r.read(ctx, tiles)
		if err != nil {
			return 0, err
		}
		for i, tile := range tiles {
			for place := range tile.Width {
				if bytes.HasPrefix(rows[i][place*merkle.HashSize:], hash[:]) {
					return tile.Index*merkle.TileWidth + int64(place), nil
				}
			}
		}
	}
	return 0, fmt.Errorf("leaf hash %s: %w", hash, ErrNotFound)
}
