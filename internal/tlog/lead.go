package tlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/store"
)

// recordingSlack is how much earlier than its predecessor in the log a leaf may have been recorded. The times are those at
// which the recorders' transactions began, so this bounds how long one may last. Partitions that end before are not read.
const recordingSlack = 24 * time.Hour

// lead takes or renews the lease, unless it was renewed just now. If the published head is not the one that this node
// published last, its tree is loaded and checked first.
func (s *Sealer) lead(ctx context.Context) (bool, error) {
	if s.NeverLeads {
		return false, nil
	}
	if s.tree != nil && time.Since(s.renewed) < lookInterval/2 {
		return true, nil
	}
	if can, err := s.canSign(ctx); err != nil || !can {
		return false, err
	}
	row, err := s.queries.AcquireSealerLease(ctx, s.DB, s.Node, leaseTime.Seconds(), s.LogID)
	if errors.Is(err, pgx.ErrNoRows) {
		if s.tree != nil {
			s.forget()
			s.Logger.InfoContext(ctx, "another node seals the log now", slog.Int64("log_id", int64(s.LogID)))
		}
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("take sealer's lease: %w", err)
	}
	s.renewed = time.Now()
	head, err := newHead(row.TreeSize, row.RootHash, time.Time{}, "")
	if err != nil {
		return false, s.refuse(err)
	}
	published := head.checkpoint(s.Origin)
	if s.tree != nil && s.published == published {
		return true, nil
	}
	if err := s.load(ctx, published); err != nil {
		s.forget()
		return false, s.refuse(err)
	}
	s.Logger.InfoContext(ctx, "this node seals the log", slog.Int64("log_id", int64(s.LogID)), slog.Int64("tree_size", published.Size))
	return true, nil
}

// refuse makes of a contradiction in the log a refusal to sign, and leaves other errors as they are.
func (s *Sealer) refuse(err error) error {
	if !errors.Is(err, ErrCorrupt) || errors.Is(err, ErrRefused) {
		return err
	}
	return fmt.Errorf("%w: %w. Somebody changed the database of log %q, or it lost committed data: run kapsel fsck to see how "+
		"far it goes, and restore the rows from a backup of the same state", ErrRefused, err, s.Origin)
}

// load reads the published tree's right edge, and checks it against the head, the head against the log's keys, the tree
// against the high-water mark, and the last leaves against their hashes.
func (s *Sealer) load(ctx context.Context, published checkpoint.Checkpoint) error {
	head, err := s.checkHead(ctx, published)
	unsigned := errors.Is(err, ErrNotFound)
	if err != nil && !unsigned {
		return err
	}
	tree, err := merkle.ReadTree(ctx, published.Size, s.tiles.read)
	if err != nil {
		return fmt.Errorf("load tree: %w", err)
	}
	if root := tree.Root(); root != published.Root {
		return fmt.Errorf("%w: the tiles of tree size %d have root %s, but root %s was published", ErrCorrupt, published.Size, root, published.Root)
	}
	if mark, ok := s.HighWater.Mark(); ok && mark.Size <= published.Size {
		mark.Root, err = merkle.RootAt(ctx, mark.Size, s.tiles.read)
		if err != nil {
			return fmt.Errorf("compare with high-water mark: %w", err)
		}
		if err := s.HighWater.check(mark); err != nil {
			return err
		}
	}
	recordedAt, err := s.checkLastLeaves(ctx, published.Size)
	if err != nil {
		return err
	}
	s.tree, s.ahead = tree, ahead{}
	s.published, s.since = published, recordedAt.Add(-recordingSlack)
	if unsigned {
		return s.publishEmpty(ctx)
	}
	if s.Witnesses != nil { // whoever published it may have ended before they answered
		s.Witnesses.Published(head)
	}
	if s.Heads != nil {
		return s.Heads.Refresh(ctx)
	}
	return nil
}

// checkHead makes sure that the head which the sealer's row names is there, and signed by a key of the log. A
// log that has no head yet is ErrNotFound.
func (s *Sealer) checkHead(ctx context.Context, published checkpoint.Checkpoint) (Head, error) {
	row, err := s.queries.TreeHeadAt(ctx, s.DB, s.LogID, published.Size)
	if errors.Is(err, pgx.ErrNoRows) {
		if published.Size == 0 {
			return Head{}, ErrNotFound
		}
		return Head{}, fmt.Errorf("%w: the published head of tree size %d is missing", ErrCorrupt, published.Size)
	}
	if err != nil {
		return Head{}, fmt.Errorf("read published head: %w", err)
	}
	if err := s.checkNote(ctx, published, row.Note); err != nil {
		return Head{}, err
	}
	return newHead(row.TreeSize, row.RootHash, row.SignedAt, row.Note)
}

// checkNote makes sure that a note is of the published head, and signed by a key of the log.
func (s *Sealer) checkNote(ctx context.Context, published checkpoint.Checkpoint, note string) error {
	keys, err := s.tiles.keys(ctx)
	if err != nil {
		return err
	}
	signed, _, err := checkpoint.Open(note, s.Origin, keys...)
	if err != nil {
		return fmt.Errorf("%w: the published head of tree size %d is not one of this log: %w", ErrCorrupt, published.Size, err)
	}
	if signed != published {
		return fmt.Errorf("%w: tree size %d with root %s was published, but its note says %d and %s", ErrCorrupt,
			published.Size, published.Root, signed.Size, signed.Root)
	}
	return nil
}

// checkLastLeaves hashes the leaves of the last leaf tile again, which is cheap and finds a database that was put together
// from different states. It returns when the last leaf was recorded. Leaves that were erased since, by retention, are not
// missed; then the time is zero.
func (s *Sealer) checkLastLeaves(ctx context.Context, size int64) (recordedAt time.Time, err error) {
	if size == 0 {
		return time.Time{}, nil
	}
	index := (size - 1) / merkle.TileWidth
	tile := merkle.Tile{Index: index, Width: merkle.WidthAt(0, index, size)}
	hashes, err := s.tiles.read(ctx, []merkle.Tile{tile})
	if err != nil {
		return time.Time{}, err
	}
	first := index * merkle.TileWidth
	rows, err := s.queries.LeafRange(ctx, s.DB, store.LeafRangeParams{LogID: s.LogID, FirstIndex: first, EndIndex: size})
	if err != nil {
		return time.Time{}, fmt.Errorf("read last leaves: %w", err)
	}
	for _, row := range rows {
		if len(row.Leaf) == 0 {
			if row.LeafIndex == size-1 {
				recordedAt = row.RecordedAt
			}
			continue // erased; whether an erasure says so is fsck's to check
		}
		at := (row.LeafIndex - first) * merkle.HashSize
		if merkle.LeafHash(row.Leaf) != merkle.Hash(hashes[0][at:at+merkle.HashSize]) {
			return time.Time{}, fmt.Errorf("%w: leaf %d is not the one that was sealed", ErrCorrupt, row.LeafIndex)
		}
		if row.LeafIndex == size-1 {
			recordedAt = row.RecordedAt
		}
	}
	return recordedAt, nil
}
