package watch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/store"
)

const (
	// A step looks at so many rows at most, so that it is short and its events are a small part of memory.
	stepAnchors = 500
	stepLeaves  = 1000
	// commitSlack is how long before its commit an event's id may have been made: intake holds a webhook for 5 s while the database
	// is away, and clocks of nodes may differ by some seconds. What comes later still is told with its first leaf.
	commitSlack = 30 * time.Second
	// recordSlack is how far the clocks of database servers may differ that wrote the ledger one after the other.
	recordSlack = time.Hour
)

// ErrFuture says that a position is ahead of the database: it is of another one, or of one that was restored.
var ErrFuture = errors.New("the position is ahead of the database")

// Tip is the position of now.
func Tip(ctx context.Context, db *store.Queries, tx store.DBTX, logID int32) (Position, error) {
	row, err := db.WatchTip(ctx, tx, logID)
	if err != nil {
		return Position{}, fmt.Errorf("read the present position: %w", err)
	}
	snapshot, err := ParseSnapshot(row.Snapshot)
	if err != nil {
		return Position{}, err
	}
	return Position{snapshot: snapshot, at: row.At, leaf: row.NextIndex}, nil
}

// Step returns the ids of events of a tenant that have changed since p, in order and each once, and the position after them. More is
// true when that is not the present yet. An event may be named although its state is what it was.
func Step(ctx context.Context, db *store.Queries, tx pgx.Tx, logID int32, tenantID uuid.UUID, p Position) (ids []uuid.UUID, next Position, more bool, err error) {
	tip, err := Tip(ctx, db, tx, logID)
	if err != nil {
		return nil, p, false, err
	}
	if p.leaf > tip.leaf || p.snapshot.Xmax > tip.snapshot.Xmax {
		return nil, p, false, ErrFuture
	}
	if p.next == nil {
		p.next, p.nextAt, p.after = &tip.snapshot, tip.at, floor(p.at.Add(-commitSlack))
	}
	fresh := func(xid string) bool {
		narrow, err := strconv.ParseUint(xid, 10, 32)
		wide := tip.snapshot.widen(uint32(narrow))
		return err == nil && p.next.Sees(wide) && !p.snapshot.Sees(wide)
	}
	anchors, err := db.ChangedAnchors(ctx, tx, store.ChangedAnchorsParams{
		TenantID: tenantID, After: p.after, Oldest: p.snapshot.oldest(), MaxRows: stepAnchors,
	})
	if err != nil {
		return nil, p, false, fmt.Errorf("look for new events: %w", err)
	}
	for _, row := range anchors {
		if fresh(row.Xid) {
			ids = append(ids, row.EventID)
		}
		p.after = row.Anchor
	}
	upTo := min(tip.leaf, p.leaf+stepLeaves)
	if upTo > p.leaf {
		changed, err := db.ChangedByLeaf(ctx, tx, store.ChangedByLeafParams{
			LogID: logID, FromIndex: p.leaf, ToIndex: upTo, Since: p.at.Add(-recordSlack), TenantID: tenantID,
		})
		if err != nil {
			return nil, p, false, fmt.Errorf("look for new leaves: %w", err)
		}
		ids = append(ids, changed...)
	}
	p.leaf = upTo
	more = p.leaf < tip.leaf
	if len(anchors) == stepAnchors {
		return inOrder(ids), p, true, nil
	}
	cancelled, err := db.ChangedByCancellation(ctx, tx, tenantID, p.at.Add(-commitSlack), p.snapshot.oldest())
	if err != nil {
		return nil, p, false, fmt.Errorf("look for cancellations: %w", err)
	}
	for _, row := range cancelled {
		if fresh(row.Xid) {
			ids = append(ids, row.EventID)
		}
	}
	return inOrder(ids), Position{snapshot: *p.next, at: p.nextAt, leaf: p.leaf}, more, nil
}

func inOrder(ids []uuid.UUID) []uuid.UUID {
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(ids)
}

// floor is the smallest UUIDv7 of a moment.
func floor(at time.Time) (first uuid.UUID) {
	ms := max(at.UnixMilli(), 0)
	for i := range 6 {
		first[i] = byte(ms >> (8 * (5 - i)))
	}
	return first
}
