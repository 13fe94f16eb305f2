package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

// probeMargin is how much longer than its destination's timeout a probe may take until its result is shared. A probe that
// takes longer is given up: its node was lost, and another one probes.
const probeMargin = 5 * time.Second

// probe sends one held delivery to each destination whose breaker is due for it, unless another node does.
func (h *Holder) probe(ctx context.Context, snapshot *route.Snapshot, held map[int64]bool) error {
	var failed []error
	for _, a := range h.health.all() {
		if !a.shut.Load() || !held[HeldUntil(a.destinationID).UnixMicro()] {
			continue
		}
		destination := snapshot.Destination(a.destinationID)
		if destination == nil || !destination.Active {
			continue
		}
		a.mu.Lock()
		due, generation := !a.changed && !a.breaker.probeAt.After(time.Now()), a.generation
		a.mu.Unlock()
		if !due {
			continue
		}
		if err := h.probeOne(ctx, snapshot, destination, a, generation); err != nil {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (h *Holder) probeOne(ctx context.Context, snapshot *route.Snapshot, destination *route.Destination, a *account, generation int64) error {
	patience, started := destination.Timeout+probeMargin, time.Now()
	claiming, cancel := outlasting(ctx)
	defer cancel()
	rows, err := h.db.ClaimProbe(claiming, h.db.Engine(), store.ClaimProbeParams{
		NodeID: h.dispatcher.nodeID, LeaseSeconds: h.claimer.lease.Seconds(), HeldUntil: HeldUntil(destination.ID),
		TenantID: destination.TenantID, DestinationID: destination.ID, ProbeSeconds: patience.Seconds(), Generation: generation,
	})
	if err != nil {
		return fmt.Errorf("claim a probe: %w", err)
	}
	if len(rows) == 0 {
		return h.lookAgain(ctx, a) // another node was first, or all that is held is locked
	}
	a.mu.Lock()
	a.generation, a.shared = generation+1, breakerHalfOpen
	a.breaker.beginProbe(started, started.Add(patience))
	a.mu.Unlock()
	return h.claimer.handOver(ctx, snapshot, []store.ClaimDueRow{store.ClaimDueRow(rows[0])}, started, true)
}

// lookAgain reads a breaker that was not as this node knew it. A database that was set back may have it from long ago, and then
// no node tells of it.
func (h *Holder) lookAgain(ctx context.Context, a *account) error {
	row, err := h.db.StandingBreaker(ctx, h.db.Engine(), a.tenantID, a.destinationID)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		row.Breaker = int16(breakerClosed)
	case err != nil:
		return fmt.Errorf("read a circuit breaker: %w", err)
	}
	h.health.adopt(a, breakerState(row.Breaker), int(row.Pauses), int(row.Successes), seconds(row.ProbeInSeconds), row.Generation)
	return nil
}
