package ingest

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

// write commits the batch, trying again until the deadline. An outcome a webhook.
func (c *Committer) write(ctx context.Context, batch []*pending, deadline time.Time) ([]outcome, error) {
	started := time.Now()
	ctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	defer cancel()
	for wait, try := minRetryWait, 1; ; try++ {
		outcomes, err := c.writeOnce(ctx, batch, try > 1)
		// After a lost answer, an event that is there already is our own: look again, its first statement has ended now.
		if err == nil || store.IsRowError(err) && !(try > 1 && store.IsRepeatError(err)) {
			return outcomes, err
		}
		c.metrics.retries.Add(1)
		if try == 1 {
			c.log.Warn("events not stored yet, trying again", "events", len(batch), "error", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("after %d tries in %v: %w", try, time.Since(started).Round(time.Millisecond), err)
		case <-time.After(wait):
		}
		wait = min(2*wait, maxRetryWait)
	}
}

// writeOnce runs the statement. After a failed try it first looks whether that one was committed, its answer lost.
func (c *Committer) writeOnce(ctx context.Context, batch []*pending, again bool) (outcomes []outcome, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("panic: %v", panicked) // tried again: sources wait for an answer
		}
	}()
	stored := make(map[uuid.UUID]bool, len(batch))
	todo := batch
	if again {
		var tenantIDs, eventIDs []uuid.UUID
		for _, p := range batch {
			tenantIDs = append(tenantIDs, p.event.TenantID)
			eventIDs = append(eventIDs, p.event.ID)
		}
		ids, err := c.db.CommittedEvents(ctx, c.db.Engine(), tenantIDs, eventIDs)
		if err != nil {
			return nil, fmt.Errorf("look up events: %w", err)
		}
		if len(ids) > 0 {
			todo = nil // the batch was one statement: what it did not store were repeats
			for _, eventID := range ids {
				stored[eventID] = true
			}
		}
	}
	if len(todo) > 0 {
		if err := fault.Point(fault.IngestBeforeCommit); err != nil {
			return nil, err
		}
		ids, err := c.db.CommitEvents(ctx, c.db.Engine(), c.params(todo))
		if err != nil {
			return nil, err
		}
		if err := fault.Point(fault.IngestAfterCommit); err != nil {
			return nil, err
		}
		for _, eventID := range ids {
			stored[eventID] = true
		}
	}
	outcomes = make([]outcome, len(batch))
	var repeats []*pending
	for i, p := range batch {
		outcomes[i] = p.stored()
		if !stored[p.event.ID] {
			outcomes[i].duplicate = true
			repeats = append(repeats, p)
		}
	}
	if len(repeats) == 0 {
		return outcomes, nil
	}
	return outcomes, c.findFirst(ctx, batch, outcomes, repeats)
}

// findFirst fills in the first event of each repeated key.
func (c *Committer) findFirst(ctx context.Context, batch []*pending, outcomes []outcome, repeats []*pending) error {
	var tenantIDs, endpointIDs []uuid.UUID
	var keyHashes [][]byte
	for _, p := range repeats {
		tenantIDs = append(tenantIDs, p.event.TenantID)
		endpointIDs = append(endpointIDs, p.event.EndpointID)
		keyHashes = append(keyHashes, p.keyHash)
	}
	rows, err := c.db.FirstEvents(ctx, c.db.Engine(), tenantIDs, endpointIDs, keyHashes)
	if err != nil {
		return fmt.Errorf("look up first events: %w", err)
	}
	type key struct {
		endpoint uuid.UUID
		hash     string
	}
	first := make(map[key]outcome, len(rows))
	for _, row := range rows {
		o := outcome{eventID: row.EventID, receivedAt: id.Time(row.EventID), defective: row.Defect != "", duplicate: true}
		if row.ReceivedAt != nil {
			o.receivedAt = *row.ReceivedAt
		}
		first[key{row.EndpointID, string(row.KeyHash)}] = o
	}
	var vanished []*pending
	var places []int
	for i, p := range batch {
		if !outcomes[i].duplicate {
			continue
		}
		o, found := first[key{p.event.EndpointID, string(p.keyHash)}]
		switch {
		case !found:
			vanished, places = append(vanished, p), append(places, i)
		case o.eventID == p.event.ID:
			outcomes[i] = p.stored() // by an earlier try, which ended after the look for it
		default:
			outcomes[i] = o
		}
	}
	if len(vanished) == 0 {
		return nil
	}
	// Their keys expired and were removed between the two statements: they are new after all.
	late, err := c.writeOnce(ctx, vanished, false)
	if err != nil {
		return err
	}
	for i, o := range late {
		outcomes[places[i]] = o
	}
	return nil
}

func (c *Committer) params(batch []*pending) store.CommitEventsParams {
	n := len(batch)
	p := store.CommitEventsParams{
		LeaseSeconds: c.lease.Seconds(), NodeID: c.nodeID,
		EventIds: make([]uuid.UUID, n), TenantIds: make([]uuid.UUID, n), EndpointIds: make([]uuid.UUID, n),
		ReceivedAts: make([]time.Time, n), Bodies: make([][]byte, n), Headers: make([][]byte, n),
		ContentTypes: make([]string, n), EventTypes: make([]string, n), DedupKeys: make([]string, n),
		KeyHashes: make([][]byte, n), KeyExpiries: make([]time.Time, n), SourceAddresses: make([]string, n),
		Verifications: make([]string, n), Defects: make([]string, n),
		DeliveryTenantIds: make([]uuid.UUID, 0, n), DeliveryIds: make([]uuid.UUID, 0, n),
		DeliveryEventIds: make([]uuid.UUID, 0, n), DeliveryEndpointIds: make([]uuid.UUID, 0, n),
		DeliveryDestinationIds: make([]uuid.UUID, 0, n), DeliveryLeased: make([]bool, 0, n),
	}
	for i, b := range batch {
		e := b.event
		p.EventIds[i], p.TenantIds[i], p.EndpointIds[i] = e.ID, e.TenantID, e.EndpointID
		p.ReceivedAts[i], p.Bodies[i], p.Headers[i] = e.ReceivedAt, notNil(e.Body), notNil(e.Headers)
		p.ContentTypes[i], p.EventTypes[i] = store.CleanText(e.ContentType, maxEventTypeBytes), e.Type
		p.DedupKeys[i], p.KeyHashes[i], p.KeyExpiries[i] = b.key, notNil(b.keyHash), e.ReceivedAt.Add(b.window)
		p.SourceAddresses[i], p.Verifications[i], p.Defects[i] = b.source, e.Preset, e.Defect
		for _, d := range b.deliveries {
			destinationID := uuid.Nil
			if d.destination != nil {
				destinationID = d.destination.ID
			}
			p.DeliveryTenantIds = append(p.DeliveryTenantIds, e.TenantID)
			p.DeliveryIds = append(p.DeliveryIds, d.id)
			p.DeliveryEventIds = append(p.DeliveryEventIds, e.ID)
			p.DeliveryEndpointIds = append(p.DeliveryEndpointIds, e.EndpointID)
			p.DeliveryDestinationIds = append(p.DeliveryDestinationIds, destinationID)
			p.DeliveryLeased = append(p.DeliveryLeased, d.leased)
			if d.orderKey != nil {
				for len(p.DeliveryOrderKeys) < len(p.DeliveryLeased)-1 {
					p.DeliveryOrderKeys = append(p.DeliveryOrderKeys, []byte{}) // of those before that are not ordered
				}
				p.DeliveryOrderKeys = append(p.DeliveryOrderKeys, d.orderKey)
			}
			if d.destination != nil && d.destination.Listens {
				for len(p.DeliveryHeldUntils) < len(p.DeliveryLeased)-1 {
					p.DeliveryHeldUntils = append(p.DeliveryHeldUntils, time.Time{}) // of those before that are not held
				}
				p.DeliveryHeldUntils = append(p.DeliveryHeldUntils, delivery.HeldUntil(d.destination.ID))
			}
		}
	}
	return p
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
