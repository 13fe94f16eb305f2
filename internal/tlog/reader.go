package tlog

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/telemetry"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/store"
)

// tileCacheSize bounds a reader's cache: 4,096 tiles are 32 MiB, and reach over a million leaves.
const tileCacheSize = 4096

// Reader answers for the published log: heads, tiles, and proofs made from tiles. It says nothing of a tree that no
// published head covers, even if its tiles are already there. Safe for concurrent use.
type Reader struct {
	tiles     tileTable
	origin    string
	cache     *tileCache
	published atomic.Int64 // a size that is known to be published

	inclusion, consistency *telemetry.Timer
}

// SetMeter says who shows how long proofs take. It belongs before the first proof.
func (r *Reader) SetMeter(m *telemetry.Meter) {
	proofs := m.FastHistogram("kapsel.proof.duration", "How long it took to make a proof from tiles, by kind.")
	r.inclusion, r.consistency = proofs.With("kind", "inclusion"), proofs.With("kind", "consistency")
}

// NewReader makes a reader of the log. Both roles, engine and tenant, may read all that it reads.
func NewReader(db store.DBTX, logID int32, origin string) *Reader {
	return &Reader{
		tiles:  tileTable{queries: store.New(), db: db, logID: logID},
		origin: origin,
		cache:  newTileCache(tileCacheSize),
	}
}

// LogID returns the log's number in the database.
func (r *Reader) LogID() int32 { return r.tiles.logID }

// Origin returns the log's name.
func (r *Reader) Origin() string { return r.origin }

// Head returns the latest head. The sealer publishes one of size 0 when it first leads; before that it is ErrNotFound.
func (r *Reader) Head(ctx context.Context) (Head, error) {
	row, err := r.tiles.queries.LatestTreeHead(ctx, r.tiles.db, r.tiles.logID)
	if err != nil {
		return Head{}, headError("read latest tree head", err)
	}
	return r.seen(newHead(row.TreeSize, row.RootHash, row.SignedAt, row.Note))
}

// HeadAt returns the head of just this size.
func (r *Reader) HeadAt(ctx context.Context, size int64) (Head, error) {
	row, err := r.tiles.queries.TreeHeadAt(ctx, r.tiles.db, r.tiles.logID, size)
	if err != nil {
		return Head{}, headError(fmt.Sprintf("read head of tree size %d", size), err)
	}
	return r.seen(newHead(row.TreeSize, row.RootHash, row.SignedAt, row.Note))
}

// HeadCovering returns the first head whose tree holds the leaf.
func (r *Reader) HeadCovering(ctx context.Context, leafIndex int64) (Head, error) {
	row, err := r.tiles.queries.FirstTreeHeadCovering(ctx, r.tiles.db, r.tiles.logID, leafIndex)
	if err != nil {
		return Head{}, headError(fmt.Sprintf("read first head over leaf %d", leafIndex), err)
	}
	return r.seen(newHead(row.TreeSize, row.RootHash, row.SignedAt, row.Note))
}

// List returns published heads smaller than before, the largest first. Old ones are thinned out.
func (r *Reader) List(ctx context.Context, before int64, count int) ([]Head, error) {
	rows, err := r.tiles.queries.ListTreeHeads(ctx, r.tiles.db, r.tiles.logID, before, int32(count))
	if err != nil {
		return nil, fmt.Errorf("list tree heads: %w", err)
	}
	heads := make([]Head, len(rows))
	for i, row := range rows {
		if heads[i], err = r.seen(newHead(row.TreeSize, row.RootHash, row.SignedAt, row.Note)); err != nil {
			return nil, err
		}
	}
	return heads, nil
}

func headError(doing string, err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		err = ErrNotFound
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// seen remembers how far the log is published.
func (r *Reader) seen(head Head, err error) (Head, error) {
	if err != nil {
		return Head{}, err
	}
	for {
		known := r.published.Load()
		if head.Size <= known || r.published.CompareAndSwap(known, head.Size) {
			return head, nil
		}
	}
}

// covered returns ErrNotFound unless a published head has at least size leaves.
func (r *Reader) covered(ctx context.Context, size int64) error {
	if size <= r.published.Load() {
		return nil
	}
	head, err := r.Head(ctx)
	if err != nil {
		return err
	}
	if size > head.Size {
		return fmt.Errorf("tree size %d: %w, which has %d leaves", size, ErrNotFound, head.Size)
	}
	return nil
}

// InclusionProof returns the audit path of a leaf in the published tree of size leaves, the leaf's sibling first.
func (r *Reader) InclusionProof(ctx context.Context, leafIndex, size int64) ([]merkle.Hash, error) {
	started := time.Now()
	defer func() { r.inclusion.Record(time.Since(started)) }()
	if leafIndex < 0 || leafIndex >= size {
		return nil, fmt.Errorf("leaf %d in tree size %d: %w", leafIndex, size, ErrNotFound)
	}
	if err := r.covered(ctx, size); err != nil {
		return nil, err
	}
	return merkle.InclusionProof(ctx, leafIndex, size, r.read)
}

// ConsistencyProof returns the proof that the published tree of to leaves grew out of the one of from leaves.
func (r *Reader) ConsistencyProof(ctx context.Context, from, to int64) ([]merkle.Hash, error) {
	started := time.Now()
	defer func() { r.consistency.Record(time.Since(started)) }()
	if from < 0 || from > to {
		return nil, fmt.Errorf("tree size %d within tree size %d: %w", from, to, ErrNotFound)
	}
	if err := r.covered(ctx, to); err != nil {
		return nil, err
	}
	return merkle.ConsistencyProof(ctx, from, to, r.read)
}

// Tile returns the hashes of a tile, Width times 32 bytes, if a published head covers it.
func (r *Reader) Tile(ctx context.Context, tile merkle.Tile) ([]byte, error) {
	covers := func() bool { return tile.Width <= merkle.WidthAt(tile.Level, tile.Index, r.published.Load()) }
	if tile.Level < 0 || tile.Index < 0 || tile.Width < 1 || tile.Width > merkle.TileWidth {
		return nil, fmt.Errorf("%s: %w", tile.Path(), ErrNotFound)
	}
	if !covers() {
		if _, err := r.Head(ctx); err != nil {
			return nil, err
		}
		if !covers() {
			return nil, fmt.Errorf("%s: %w", tile.Path(), ErrNotFound)
		}
	}
	rows, err := r.read(ctx, []merkle.Tile{tile})
	if err != nil {
		return nil, err
	}
	return rows[0][:tile.Width*merkle.HashSize], nil
}

// read is a merkle.TileReader that asks the database, in one query, for what the cache does not hold.
func (r *Reader) read(ctx context.Context, tiles []merkle.Tile) ([][]byte, error) {
	hashes := make([][]byte, len(tiles))
	var missing []merkle.Tile
	var places []int
	for i, tile := range tiles {
		cached, ok := r.cache.get(tileID{tile.Level, tile.Index}, tile.Width)
		if !ok {
			missing, places = append(missing, tile), append(places, i)
		}
		hashes[i] = cached
	}
	if len(missing) == 0 {
		return hashes, nil
	}
	rows, err := r.tiles.read(ctx, missing)
	if err != nil {
		return nil, err
	}
	for i, tile := range missing {
		hashes[places[i]] = rows[i]
		r.cache.put(tileID{tile.Level, tile.Index}, rows[i])
	}
	return hashes, nil
}

// Keys returns all keys that the log has ever had, oldest first.
func (r *Reader) Keys(ctx context.Context) ([]ed25519.PublicKey, error) { return r.tiles.keys(ctx) }

func (t tileTable) keys(ctx context.Context) ([]ed25519.PublicKey, error) {
	rows, err := t.queries.ListLogKeys(ctx, t.db, t.logID)
	if err != nil {
		return nil, fmt.Errorf("read keys of log %d: %w", t.logID, err)
	}
	keys := make([]ed25519.PublicKey, len(rows))
	for i, row := range rows {
		keys[i] = row.PublicKey
	}
	return keys, nil
}

// SignedNote returns a head's note with the witnesses' lines that have come in so far.
func (r *Reader) SignedNote(ctx context.Context, head Head) (string, error) {
	notes, err := r.SignedNotes(ctx, []Head{head})
	if err != nil {
		return "", err
	}
	return notes[0], nil
}

// SignedNotes does the same for several heads in one query.
func (r *Reader) SignedNotes(ctx context.Context, heads []Head) ([]string, error) {
	sizes := make([]int64, len(heads))
	for i, head := range heads {
		sizes[i] = head.Size
	}
	rows, err := r.tiles.queries.CosignaturesOfHeads(ctx, r.tiles.db, r.tiles.logID, sizes)
	if err != nil {
		return nil, fmt.Errorf("read cosignatures of %d tree heads: %w", len(heads), err)
	}
	lines := make(map[int64]string)
	for _, row := range rows {
		lines[row.TreeSize] += strings.TrimSuffix(row.Line, "\n") + "\n"
	}
	notes := make([]string, len(heads))
	for i, head := range heads {
		notes[i] = head.Note + lines[head.Size]
	}
	return notes, nil
}
