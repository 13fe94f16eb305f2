package delivery

import (
	"context"
	"math"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/store"
)

// What is read of the queue to estimate a backlog (8 MiB), and to find what is overdue.
const (
	maxSamplePages = 1024
	maxFrontRows   = 10_000
)

// Backlog estimates what waits for a destination.
type Backlog struct{ db *store.DB }

// NewBacklog makes a Backlog of the queue in db.
func NewBacklog(db *store.DB) Backlog { return Backlog{db} }

// Estimate counts in a sample of the queue's pages, and looks at the front of the queue for what is overdue; oldest is zero
// when nothing is. It does so as the engine: row-level security would have the limits count rows of one tenant only, and
// read without bound. So whose the destination is must be known before.
func (b Backlog) Estimate(ctx context.Context, destinationID uuid.UUID) (waiting int64, oldest time.Time, err error) {
	pages, err := b.db.QueuePages(ctx, b.db.Engine())
	if err != nil {
		return 0, time.Time{}, err
	}
	share := min(1, maxSamplePages/float64(max(1, pages)))
	counted, err := b.db.SampleQueue(ctx, b.db.Engine(), float32(100*share), destinationID)
	if err != nil {
		return 0, time.Time{}, err
	}
	front, err := b.db.QueueFront(ctx, b.db.Engine(), maxFrontRows, destinationID)
	if err != nil {
		return 0, time.Time{}, err
	}
	if front.Overdue > 0 {
		oldest = front.OldestDueAt
	}
	return int64(math.Round(float64(counted) / share)), oldest, nil
}
