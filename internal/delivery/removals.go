package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	removalInterval = time.Second
	// A step looks at so many rows of a tenant's queue, and holds their locks for a few milliseconds.
	removalPage = 2000
	// Of one second: enough to end half a million deliveries in some minutes, and few enough that the claims of other
	// destinations' deliveries, which are due in the same order, do not wait behind them.
	removalPace     = 1000
	maxRemovalSteps = 50
)

// RemovalSettle is how long after a destination's deletion its deliveries may still be made or put off: by a node whose
// snapshot is older, and by attempts that were in flight, whose leases end by then.
const RemovalSettle = DefaultLease + 45*time.Second

// Removals has the deliveries of deleted destinations end soon, as dead letters, instead of when their next attempt would
// have been. It only makes them due: the claimer does the rest. All nodes may run it at once, and each goes on where
// another one stopped.
type Removals struct {
	db     *store.DB
	settle time.Duration
	log    *slog.Logger
}

// NewRemovals makes the component. settle is RemovalSettle, but in tests.
func NewRemovals(db *store.DB, settle time.Duration, log *slog.Logger) *Removals {
	return &Removals{db: db, settle: settle, log: log}
}

// Run looks for work once a second until ctx ends.
func (r *Removals) Run(ctx context.Context) error {
	return every(ctx, removalInterval, func() {
		if err := r.sweep(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("deliveries of deleted destinations not ended, trying again", "error", err)
		}
	})
}

// sweep makes a second's steps.
func (r *Removals) sweep(ctx context.Context) error {
	fault.Pass(fault.RemovalsSweep)
	hastened := int64(0)
	for range maxRemovalSteps {
		step, err := r.db.SweepRemovedDestination(ctx, r.db.Engine(), r.settle.Seconds(), removalPage)
		if err != nil {
			return fmt.Errorf("sweep a deleted destination's deliveries: %w", err)
		}
		hastened += step.Hastened
		if !step.Worked || hastened >= removalPace {
			break
		}
	}
	return nil
}
