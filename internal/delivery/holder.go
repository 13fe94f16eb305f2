package delivery

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	holdInterval = 250 * time.Millisecond
	// A step looks at so many due rows. It is repeated while it finds any, so that a backlog is gone from the claims' way
	// within seconds, and no statement is long.
	holdPage     = 5000
	maxHoldSteps = 10
	// What one node releases of a destination's backlog in an interval: a few at first, for a destination that has just been
	// mended, twice as many each time after.
	firstRelease = 10
	maxRelease   = 500
)

// heldFrom is before every moment at which something is held. No delivery is really due that late.
var heldFrom = time.Date(3000, time.January, 1, 0, 0, 0, 0, time.UTC)

// heldUntil is the moment that stands for a destination in the queue's order: its deliveries are found there again by the
// one index that the queue has. Its 40 bits are random bits of a UUIDv7.
func heldUntil(destinationID uuid.UUID) time.Time {
	bits := binary.BigEndian.Uint64(destinationID[8:]) & (1<<40 - 1)
	return heldFrom.Add(time.Duration(bits) * time.Microsecond)
}

// Held reports whether a delivery that is due then is held: it has no time of its own.
func Held(due time.Time) bool { return !due.Before(heldFrom) }

// Holder keeps deliveries of paused and disabled destinations out of the way. It gives back what this node holds of them,
// puts their due rows off in bulk without reading a payload, and lets them come back by and by when the destination is
// enabled again. It also disables destinations when an attempt demanded it. Every node runs one.
type Holder struct {
	db         *store.DB
	routes     *route.Table
	dispatcher *Dispatcher
	log        *slog.Logger
	released   map[uuid.UUID]int // of each destination that comes back: how many in the last interval
}

// NewHolder makes the holder of a node.
func NewHolder(db *store.DB, routes *route.Table, dispatcher *Dispatcher, log *slog.Logger) *Holder {
	return &Holder{db: db, routes: routes, dispatcher: dispatcher, log: log, released: make(map[uuid.UUID]int)}
}

// Run does its duties four times a second until ctx ends.
func (h *Holder) Run(ctx context.Context) error {
	ticker := time.NewTicker(holdInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if err := h.tick(ctx); err != nil && ctx.Err() == nil {
			h.log.Warn("deliveries not held or released, trying again", "error", err)
		}
	}
}

func (h *Holder) tick(ctx context.Context) error {
	disableErr := h.disable(ctx)
	snapshot := h.routes.Snapshot()
	inactive := snapshot.InactiveDestinations()
	h.dispatcher.withdraw(inactive)
	return errors.Join(disableErr, h.hold(ctx, inactive), h.release(ctx, snapshot))
}

// hold puts off what is due of inactive destinations.
func (h *Holder) hold(ctx context.Context, inactive []uuid.UUID) error {
	if len(inactive) == 0 {
		return nil
	}
	moments := make([]time.Time, len(inactive))
	for i, destinationID := range inactive {
		moments[i] = heldUntil(destinationID)
	}
	for range maxHoldSteps {
		held, err := h.db.HoldDeliveries(ctx, h.db.Engine(), inactive, moments, holdPage)
		if err != nil {
			return fmt.Errorf("hold deliveries: %w", err)
		}
		if held == 0 {
			return nil
		}
	}
	return nil
}

// release makes some of what is held for active destinations due.
func (h *Holder) release(ctx context.Context, snapshot *route.Snapshot) error {
	moments, err := h.db.HeldMoments(ctx, h.db.Engine(), heldFrom)
	if err != nil {
		return fmt.Errorf("look for held deliveries: %w", err)
	}
	held := make(map[int64]bool, len(moments))
	for _, moment := range moments {
		held[moment.UnixMicro()] = true
	}
	released := make(map[uuid.UUID]int)
	if len(held) > 0 {
		for _, destination := range snapshot.ActiveDestinations() {
			if !held[heldUntil(destination.ID).UnixMicro()] {
				continue
			}
			n := min(max(firstRelease, 2*h.released[destination.ID]), maxRelease)
			if destination.RatePerSecond > 0 {
				n = min(n, max(1, destination.RatePerSecond*int(holdInterval)/int(time.Second)))
			}
			released[destination.ID] = n
			if _, err := h.db.ReleaseHeld(ctx, h.db.Engine(), heldUntil(destination.ID), destination.ID, int32(n)); err != nil {
				return fmt.Errorf("release held deliveries: %w", err)
			}
		}
	}
	h.released = released
	return nil
}

// disable carries out what attempts demanded. What fails is tried again.
func (h *Holder) disable(ctx context.Context) error {
	var failed error
	for destinationID, demand := range h.dispatcher.takeDisables() {
		changed, err := h.db.DisableDestination(ctx, h.db.Engine(), store.DisableDestinationParams{
			TenantID: demand.tenantID, DestinationID: destinationID, DisableReason: int16(demand.disable.Reason),
			StateDetail: store.CleanText(demand.disable.Detail, maxDetailBytes),
		})
		if err != nil {
			h.dispatcher.demandDisable(destinationID, demand)
			failed = fmt.Errorf("disable destination %s: %w", id.Destination.Text(destinationID), err)
			continue
		}
		if changed > 0 {
			h.log.Warn("destination disabled", "tenant_id", id.Tenant.Text(demand.tenantID), "destination_id", id.Destination.Text(destinationID),
				"event_id", id.Event.Text(demand.eventID), "reason", demand.disable.Reason, "detail", demand.disable.Detail)
			h.routes.Poke()
		}
	}
	return failed
}
