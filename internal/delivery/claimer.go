package delivery

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	claimInterval = 100 * time.Millisecond
	maxClaim      = 500
	// What one claim may bring into memory.
	maxClaimBytes = 32 << 20
)

// Claimer takes due rows of the queue for this node.
type Claimer struct {
	db         *store.DB
	nodeID     uuid.UUID
	lease      time.Duration
	routes     *route.Table
	dispatcher *Dispatcher
	leases     *Leases
	log        *slog.Logger

	looked   time.Time // when all ordering keys, page by page, were looked at last
	lookedAt turn      // the last one of that page
}

// NewClaimer makes a claimer whose jobs go to dispatcher.
func NewClaimer(db *store.DB, nodeID uuid.UUID, lease time.Duration, routes *route.Table, dispatcher *Dispatcher, leases *Leases, log *slog.Logger) *Claimer {
	return &Claimer{db: db, nodeID: nodeID, lease: lease, routes: routes, dispatcher: dispatcher, leases: leases, log: log}
}

// Run claims due deliveries until ctx ends: often while there are any, ten times a second otherwise.
func (c *Claimer) Run(ctx context.Context) error {
	for {
		claimed, err := c.claim(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait := claimInterval
		switch {
		case err != nil:
			c.log.Warn("claim failed, trying again", "error", err)
			wait = 10 * claimInterval
		case claimed == maxClaim:
			wait = 0
		}
		if err := c.pause(ctx, wait); err != nil {
			return err
		}
	}
}

// pause waits, and takes ordered deliveries meanwhile as soon as it may be their turn. The error is ctx's.
func (c *Claimer) pause(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			if err := c.lookForTurns(ctx); err != nil && ctx.Err() == nil {
				c.log.Warn("no look for ordered deliveries, trying again", "error", err)
			}
			return ctx.Err()
		case <-c.dispatcher.turns.wake:
			if err := c.takeTurns(ctx); err != nil && ctx.Err() == nil {
				c.log.Warn("ordered deliveries not claimed, trying again", "error", err)
			}
		}
	}
}

// claim takes one batch and hands it over. It returns how many rows it took.
func (c *Claimer) claim(ctx context.Context) (int, error) {
	room := min(maxClaim, c.dispatcher.Room())
	maxBytes := min(maxClaimBytes, c.dispatcher.RoomBytes())
	if room <= 0 || maxBytes <= 0 {
		return 0, nil
	}
	snapshot := c.routes.Snapshot()
	started := time.Now()
	claiming, cancel := outlasting(ctx)
	defer cancel()
	rows, err := c.db.ClaimDue(claiming, c.db.Engine(), store.ClaimDueParams{
		NodeID: c.nodeID, LeaseSeconds: c.lease.Seconds(), MaxRows: int32(room),
		FullDestinationIds: c.closedDestinations(snapshot),
	})
	if err != nil {
		return 0, fmt.Errorf("claim due deliveries: %w", err)
	}
	if len(rows) == 0 {
		return 0, nil
	}
	claimed := len(rows)
	rows = c.putOffExcess(ctx, snapshot, rows)
	if err := c.handOver(ctx, snapshot, rows, started, false); err != nil {
		return 0, err
	}
	return claimed, nil
}

// closedDestinations are those of which nothing is claimed. It is never nil, which to SQL would not be an empty array.
func (c *Claimer) closedDestinations(snapshot *route.Snapshot) []uuid.UUID {
	closed := append(c.dispatcher.FullDestinations(snapshot), c.dispatcher.health.shutDestinations()...)
	return append(closed, snapshot.InactiveDestinations()...)
}

// handOver brings claimed rows to the dispatcher, as far as they fit into memory. A probe is sent though its destination's
// circuit breaker is open.
func (c *Claimer) handOver(ctx context.Context, snapshot *route.Snapshot, rows []store.ClaimDueRow, started time.Time, probe bool) error {
	// What the dispatcher does not get is given back, after an error or a panic too: this node lives on, and nobody else would
	// take it before the lease ends.
	var unsent, missing []store.ClaimDueRow
	settled := 0 // of rows: handed over, or in unsent or missing
	defer func() { c.giveBack(ctx, slices.Concat(unsent, missing, rows[settled:])) }()
	fault.Pass(fault.DeliveryAfterClaim)
	events, err := c.load(ctx, rows, min(maxClaimBytes, c.dispatcher.RoomBytes()))
	if err == nil {
		snapshot, err = c.knowAll(ctx, snapshot, rows)
	}
	if err != nil {
		return err
	}
	for i, row := range rows {
		settled = i + 1
		event := events[row.EventID]
		if event == nil {
			missing = append(missing, row) // beyond the bound of this batch, or gone
			continue
		}
		job := Job{
			Duty:      ledger.Duty{Event: event, DeliveryID: row.DeliveryID, Attempts: int(row.Attempts)},
			OrderKey:  row.OrderKey,
			LeaseEnds: started.Add(c.lease), Probe: probe,
		}
		if row.DestinationID != nil {
			job.DestinationID = *row.DestinationID
			job.Destination = snapshot.Destination(*row.DestinationID)
			if job.Destination != nil && !job.Destination.Active && row.LostOwner == nil {
				unsent = append(unsent, row) // held since the claim
				continue
			}
			if row.LostOwner != nil {
				job.LostOwner = *row.LostOwner
			}
		}
		c.dispatcher.reserve(job.Destination, len(event.Body))
		c.dispatcher.Hold(job)
	}
	if err := c.cancelVanished(ctx, missing); err != nil {
		c.log.Warn("deliveries without an event not ended, trying again", "error", err)
	}
	return nil
}

// knowAll returns a snapshot that has the destination of each row, unless it was deleted: one that was made on another
// node a moment ago must not be taken for gone.
func (c *Claimer) knowAll(ctx context.Context, snapshot *route.Snapshot, rows []store.ClaimDueRow) (*route.Snapshot, error) {
	for _, row := range rows {
		if row.DestinationID != nil && snapshot.Destination(*row.DestinationID) == nil && !snapshot.Removed(*row.DestinationID) {
			if err := c.routes.Refresh(ctx); err != nil {
				return nil, fmt.Errorf("look for a new destination: %w", err)
			}
			return c.routes.Snapshot(), nil
		}
	}
	return snapshot, nil
}

// load reads the events of the rows, up to maxBytes of payload.
func (c *Claimer) load(ctx context.Context, rows []store.ClaimDueRow, maxBytes int64) (map[uuid.UUID]*ledger.Event, error) {
	var tenantIDs, eventIDs []uuid.UUID
	asked := make(map[uuid.UUID]bool, len(rows))
	for _, row := range rows {
		if !asked[row.EventID] {
			asked[row.EventID] = true
			tenantIDs = append(tenantIDs, row.TenantID)
			eventIDs = append(eventIDs, row.EventID)
		}
	}
	found, err := c.db.LoadEvents(ctx, c.db.Engine(), tenantIDs, eventIDs, maxBytes)
	if err != nil {
		return nil, fmt.Errorf("load events of claimed deliveries: %w", err)
	}
	endpoints := make(map[uuid.UUID]uuid.UUID, len(rows))
	for _, row := range rows {
		endpoints[row.EventID] = row.EndpointID
	}
	events := make(map[uuid.UUID]*ledger.Event, len(found))
	for _, row := range found {
		event := &ledger.Event{
			TenantID: row.TenantID, ID: row.EventID, EndpointID: endpoints[row.EventID],
			ReceivedAt: row.ReceivedAt, Body: row.Body, Headers: row.Headers, ContentType: row.ContentType,
			Type: row.EventType, Preset: row.Verification, Defect: row.Defect,
			BodySHA256: sha256.Sum256(row.Body),
		}
		events[row.EventID] = event
	}
	return events, nil
}

// cancelVanished ends those of the claimed rows whose event was removed: given back, they would be claimed for ever.
func (c *Claimer) cancelVanished(ctx context.Context, rows []store.ClaimDueRow) error {
	if len(rows) == 0 {
		return nil
	}
	var tenantIDs, deliveryIDs []uuid.UUID
	for _, row := range rows {
		tenantIDs = append(tenantIDs, row.TenantID)
		deliveryIDs = append(deliveryIDs, row.DeliveryID)
	}
	cancelled, err := c.db.CancelVanished(ctx, c.db.Engine(), tenantIDs, deliveryIDs, c.nodeID)
	if err != nil {
		return fmt.Errorf("cancel deliveries without an event: %w", err)
	}
	if cancelled > 0 {
		c.log.Warn("deliveries cancelled, their events were removed", "deliveries", cancelled)
	}
	return nil
}

// giveBack releases claimed rows, due at once.
func (c *Claimer) giveBack(ctx context.Context, rows []store.ClaimDueRow) { c.putOff(ctx, rows, nil) }

// putOff releases claimed rows, due at a moment; nil is at once.
func (c *Claimer) putOff(ctx context.Context, rows []store.ClaimDueRow, due *time.Time) {
	held := store.ReleaseLeasesParams{DueAt: due}
	for _, row := range rows {
		held.TenantIds, held.DeliveryIds = append(held.TenantIds, row.TenantID), append(held.DeliveryIds, row.DeliveryID)
		held.Attempts = append(held.Attempts, row.Attempts)
	}
	c.leases.release(ctx, held)
}
