package tlog

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// maxSealLeaves bounds one seal while a backlog is worked off: about 400 tiles, 6 MiB.
	maxSealLeaves = 100_000
	// leafChunk is how many leaves are in memory at a time, about 3 MiB.
	leafChunk = 5_000
)

// backlog is what waits for a seal.
type backlog struct {
	end    int64 // the next leaf index: all leaves below it can be read
	leaves int64
	age    time.Duration // of the oldest, by the database's clock
}

// waiting reads what waits. A database that has fewer leaves than were signed is refused here, before anything waits.
func (s *Sealer) waiting(ctx context.Context) (backlog, error) {
	row, err := s.queries.UnsealedLeaves(ctx, s.DB, s.since, s.LogID)
	if err != nil {
		return backlog{}, fmt.Errorf("count unsealed leaves: %w", err)
	}
	if row.NextIndex < s.tree.Size() {
		return backlog{}, s.refuse(fmt.Errorf("%w: the next leaf has index %d, but a tree of %d leaves was published", ErrCorrupt,
			row.NextIndex, s.tree.Size()))
	}
	if mark, ok := s.HighWater.Mark(); ok && row.NextIndex < mark.Size {
		return backlog{}, s.HighWater.refuse("a tree of %d leaves was signed, but the database holds only %d", mark.Size, row.NextIndex)
	}
	return backlog{
		end:    row.NextIndex,
		leaves: row.NextIndex - s.tree.Size(),
		age:    time.Duration(row.OldestSeconds * float64(time.Second)),
	}, nil
}

// sealUntil seals all that waits: in one seal, or in several if it is a backlog.
func (s *Sealer) sealUntil(ctx context.Context, waiting backlog) error {
	for s.tree.Size() < waiting.end {
		began, before := time.Now(), s.tree.Size()
		end := min(waiting.end, before+maxSealLeaves)
		if mark, ok := s.HighWater.Mark(); ok && mark.Size > before {
			// A head was signed, but a crash kept it from being published. Nothing below it may be signed, and the same
			// tree must come out now.
			end = max(mark.Size, min(s.beyond, end))
		}
		head, err := s.seal(ctx, end)
		if err != nil {
			s.forget() // what the database holds now is not certain: load it again
			return s.refuse(err)
		}
		stats := SealStats{Head: head, Leaves: head.Size - before, Waited: waiting.age, Took: time.Since(began), Signed: s.signed}
		s.Logger.DebugContext(ctx, "sealed", slog.Int64("log_id", int64(s.LogID)), slog.Int64("tree_size", head.Size),
			slog.Int64("leaves", stats.Leaves), slog.Duration("took", stats.Took))
		if s.OnSeal != nil {
			s.OnSeal(stats)
		}
	}
	return nil
}

// seal grows the tree up to end and publishes its head. The order of its steps is what keeps the log from forking: tiles
// are durable, then checked, then signed, then the mark is durable, and only then is anything shown.
func (s *Sealer) seal(ctx context.Context, end int64) (Head, error) {
	if err := s.hashLeaves(ctx, end); err != nil {
		return Head{}, err
	}
	hashes, recordedAt := s.ahead.hashes, s.ahead.recordedAt
	if n := end - s.tree.Size(); n < int64(len(hashes)) {
		hashes, recordedAt = hashes[:n], s.since.Add(recordingSlack) // the earliest that it can be: more is not known
	}
	next, tiles := s.tree.Grow(hashes)
	if err := fault.Point(fault.SealerBeforeTiles); err != nil {
		return Head{}, err
	}
	if err := s.tiles.write(ctx, tiles); err != nil {
		return Head{}, err
	}
	if err := fault.Point(fault.SealerAfterTiles); err != nil {
		return Head{}, err
	}
	grown := checkpoint.Checkpoint{Origin: s.Origin, Size: next.Size(), Root: next.Root()}
	if err := s.checkStored(ctx, grown); err != nil {
		return Head{}, err
	}
	if err := s.checkMark(ctx, grown.Size); err != nil {
		return Head{}, err
	}
	if err := s.keepLease(ctx); err != nil {
		return Head{}, err
	}
	head, err := s.publish(ctx, grown)
	if err != nil {
		return Head{}, err
	}
	s.tree, s.since = next, recordedAt.Add(-recordingSlack)
	s.ahead.hashes = append(s.ahead.hashes[:0], s.ahead.hashes[len(hashes):]...)
	return head, nil
}

// ahead are hashes of leaves beyond the tree that were read before their seal, so that a seal is not a burst of work once
// a second that everything else waits for.
type ahead struct {
	hashes     []merkle.Hash // of the leaves from the tree's size on
	recordedAt time.Time     // of the last one
}

// hashLeaves hashes the leaves beyond the tree up to end, exactly as they are stored, but for those that were read already.
func (s *Sealer) hashLeaves(ctx context.Context, end int64) error {
	for {
		at := s.tree.Size() + int64(len(s.ahead.hashes))
		if at >= end {
			return nil
		}
		stop := min(at+leafChunk, end)
		rows, err := s.queries.LeafRange(ctx, s.DB, store.LeafRangeParams{LogID: s.LogID, FirstIndex: at, EndIndex: stop, Since: s.since})
		if err != nil {
			return fmt.Errorf("read leaves from %d to %d: %w", at, stop, err)
		}
		for i, row := range rows {
			if row.LeafIndex != at+int64(i) {
				return fmt.Errorf("%w: leaf %d is missing or there twice", ErrCorrupt, at+int64(i))
			}
			s.ahead.hashes = append(s.ahead.hashes, merkle.LeafHash(row.Leaf))
			s.ahead.recordedAt = row.RecordedAt
		}
		if int64(len(rows)) != stop-at {
			return fmt.Errorf("%w: leaf %d is missing", ErrCorrupt, at+int64(len(rows)))
		}
	}
}

// checkStored reads back the tiles that the new tree consists of, and proves from them that they have its root and that
// the published tree is a prefix of it.
func (s *Sealer) checkStored(ctx context.Context, grown checkpoint.Checkpoint) error {
	root, err := merkle.RootAt(ctx, grown.Size, s.tiles.read)
	if err != nil {
		return fmt.Errorf("read tiles back: %w", err)
	}
	if root != grown.Root {
		return fmt.Errorf("%w: the stored tiles of tree size %d have root %s, but its leaves have root %s", ErrCorrupt, grown.Size, root, grown.Root)
	}
	proof, err := merkle.ConsistencyProof(ctx, s.published.Size, grown.Size, s.tiles.read)
	if err != nil {
		return fmt.Errorf("prove consistency: %w", err)
	}
	if err := merkle.VerifyConsistency(s.published.Size, grown.Size, proof, s.published.Root, grown.Root); err != nil {
		return fmt.Errorf("%w: tree size %d is not a prefix of tree size %d: %w", ErrCorrupt, s.published.Size, grown.Size, err)
	}
	return nil
}

// keepLease renews the lease if it was not renewed just now: nothing is published without it.
func (s *Sealer) keepLease(ctx context.Context) error {
	if time.Since(s.renewed) <= lookInterval {
		return nil
	}
	return s.renew(ctx)
}

// renew keeps the lease over a long seal.
func (s *Sealer) renew(ctx context.Context) error {
	_, err := s.queries.AcquireSealerLease(ctx, s.DB, s.Node, leaseTime.Seconds(), s.LogID)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrNotLeader
	}
	if err != nil {
		return fmt.Errorf("renew sealer's lease: %w", err)
	}
	s.renewed = time.Now()
	return nil
}

// publish signs c with the keys in force, puts the high-water mark on disk, has witnesses cosign, and swaps the published
// head for it. If another node was faster, the signed note is dropped: nobody but witnesses has seen it.
func (s *Sealer) publish(ctx context.Context, c checkpoint.Checkpoint) (Head, error) {
	if err := s.HighWater.check(c); err != nil {
		return Head{}, err
	}
	keys, err := s.keysInForce(ctx)
	if err != nil {
		return Head{}, err
	}
	if err := fault.Point(fault.SealerBeforeSign); err != nil {
		return Head{}, err
	}
	now := time.Now().UTC().Truncate(time.Second)
	signers := make([]crypto.Signer, len(keys))
	for i, key := range keys {
		signers[i] = key.Signer()
	}
	note, err := checkpoint.Sign(c, now, signers...)
	if err != nil {
		return Head{}, err
	}
	s.signed = time.Now()
	if err := s.HighWater.advance(c); err != nil {
		return Head{}, err
	}
	if err := fault.Point(fault.SealerAfterHighWater); err != nil {
		return Head{}, err
	}
	if err := s.keepLease(ctx); err != nil { // a key in a module or a cloud may have taken its time, once a signature
		return Head{}, err
	}
	head := Head{Size: c.Size, Root: c.Root, SignedAt: now, Note: note}
	cosignatures, err := s.cosign(ctx, head)
	if err != nil {
		return Head{}, fmt.Errorf("publish tree size %d: %w", c.Size, err)
	}
	if err := fault.Point(fault.SealerAfterCosign); err != nil {
		return Head{}, err
	}
	params := store.PublishTreeHeadParams{
		LogID: s.LogID, NodeID: s.Node,
		TreeSize: c.Size, RootHash: c.Root[:], SignedAt: now, Note: note,
		PreviousSize: s.published.Size, PreviousRoot: s.published.Root[:],
	}
	params.KeyNames, params.Lines, params.VerifierKeys = columns(cosignatures)
	_, err = s.queries.PublishTreeHead(ctx, s.DB, params)
	if errors.Is(err, pgx.ErrNoRows) {
		return Head{}, fmt.Errorf("publish tree size %d: %w", c.Size, ErrNotLeader)
	}
	if err != nil {
		return Head{}, fmt.Errorf("publish tree size %d: %w", c.Size, err)
	}
	s.published = c
	if s.Witnesses != nil {
		s.Witnesses.Published(head)
	}
	if s.Heads != nil {
		s.Heads.Publish(head)
	}
	return head, nil
}

// publishEmpty gives a new log its first head, of no leaves, so that there is always one to be asked for.
func (s *Sealer) publishEmpty(ctx context.Context) error {
	if mark, ok := s.HighWater.Mark(); ok && mark.Size > 0 {
		return s.HighWater.refuse("a tree of %d leaves was signed, but the database has no head at all", mark.Size)
	}
	_, err := s.publish(ctx, s.published)
	return err
}
