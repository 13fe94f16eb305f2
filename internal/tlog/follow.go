package tlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// follow takes the head that another node has published into this node's high-water mark, so that this node refuses too when
// the database loses what was signed: the one that signed it may be gone by then, or refuse, and leave the log to this one.
// A mark is only moved to a signed tree that contains the one it stood at.
func (s *Sealer) follow(ctx context.Context) error {
	row, err := s.queries.LatestTreeHead(ctx, s.DB, s.LogID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // a new log. If it is none, whoever leads finds out
	}
	if err != nil {
		return fmt.Errorf("read latest tree head: %w", err)
	}
	head, err := newHead(row.TreeSize, row.RootHash, row.SignedAt, row.Note)
	if err != nil {
		return err
	}
	published := head.checkpoint(s.Origin)
	mark, marked := s.HighWater.Mark()
	switch {
	case marked && published == mark:
		return nil
	case marked && published.Size < mark.Size:
		return s.checkProgress(ctx, mark)
	case marked && published.Size == mark.Size:
		return s.HighWater.check(published)
	}
	if err := s.checkNote(ctx, published, row.Note); err != nil {
		return err
	}
	root, err := merkle.RootAt(ctx, published.Size, s.tiles.read)
	if err != nil {
		return fmt.Errorf("follow tree size %d: %w", published.Size, err)
	}
	if root != published.Root {
		return fmt.Errorf("%w: the tiles of tree size %d have root %s, but root %s was published", ErrCorrupt, published.Size, root, published.Root)
	}
	if marked {
		if mark.Root, err = merkle.RootAt(ctx, mark.Size, s.tiles.read); err != nil {
			return fmt.Errorf("compare with high-water mark: %w", err)
		}
		if err := s.HighWater.check(mark); err != nil {
			return err
		}
	}
	return s.HighWater.advance(published)
}

// checkProgress refuses a database that does not have the leaves of a tree that was signed. That its head was not published
// is no reason: the next one will contain it.
func (s *Sealer) checkProgress(ctx context.Context, mark checkpoint.Checkpoint) error {
	progress, err := s.queries.LogProgress(ctx, s.DB, s.LogID)
	if err != nil {
		return fmt.Errorf("read the log's progress: %w", err)
	}
	if progress.NextIndex < mark.Size {
		return s.HighWater.refuse("a tree of %d leaves was signed, but the database holds only %d", mark.Size, progress.NextIndex)
	}
	return nil
}

// newHead is closed when a head is published, here or, as far as this node is told, elsewhere.
func (s *Sealer) newHead() <-chan struct{} {
	if s.Heads == nil {
		return nil
	}
	_, _, changed := s.Heads.State()
	return changed
}
