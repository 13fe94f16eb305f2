package ingest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// What may wait for a commit: at 10,000 webhooks a second some 0.8 s of them, and at most this much memory.
	maxWaiting      = 8192
	maxWaitingBytes = 64 << 20

	maxBatch      = 500
	maxBatchBytes = 8 << 20
	// Two flushers: one batch is prepared and sent while the other waits for the disk.
	flushers = 1

	maxBatchSpread = time.Second
	// What a statement gets at least, however long its webhooks have waited.
	minTryTime = 500 * time.Millisecond

	minRetryWait = 20 * time.Millisecond
	maxRetryWait = 250 * time.Millisecond
)

// Committer stores events in batches. Natural batching: a batch is what came while the last one was written, and nothing
// waits for a timer.
type Committer struct {
	db         *store.DB
	nodeID     uuid.UUID
	lease      time.Duration
	hold       time.Duration
	dispatcher *delivery.Dispatcher
	log        *slog.Logger

	waiting      chan *pending
	waitingBytes atomic.Int64
}

// NewCommitter makes a committer. lease is for how long new deliveries are leased to this node, hold how long a webhook
// waits for a database that is away.
func NewCommitter(db *store.DB, nodeID uuid.UUID, lease, hold time.Duration, dispatcher *delivery.Dispatcher, log *slog.Logger) *Committer {
	return &Committer{
		db: db, nodeID: nodeID, lease: lease, hold: hold, dispatcher: dispatcher, log: log,
		waiting: make(chan *pending, maxWaiting),
	}
}

// commit waits until p is stored. When ctx ends first, p may still be stored.
func (c *Committer) commit(ctx context.Context, p *pending) (Receipt, error) {
	if c.waitingBytes.Add(p.bytes()) > maxWaitingBytes {
		c.waitingBytes.Add(-p.bytes())
		return Receipt{}, ErrOverloaded
	}
	select {
	case c.waiting <- p:
	default:
		c.waitingBytes.Add(-p.bytes())
		return Receipt{}, ErrOverloaded
	}
	select {
	case o := <-p.done:
		return o.receipt()
	case <-ctx.Done():
		return Receipt{}, ctx.Err()
	}
}

// Run stores what comes until ctx ends. Whoever ends ctx has stopped the requests before: what waits then is told
// ErrUnavailable.
func (c *Committer) Run(ctx context.Context) error {
	done := make(chan struct{}, flushers)
	for range flushers {
		go func() {
			defer func() { done <- struct{}{} }()
			c.flush(ctx)
		}()
	}
	for range flushers {
		<-done
	}
	for {
		select {
		case p := <-c.waiting:
			p.done <- outcome{err: ErrUnavailable}
		default:
			return ctx.Err()
		}
	}
}

// flush stores batch after batch until ctx ends.
func (c *Committer) flush(ctx context.Context) {
	var first *pending // of the next batch
	for {
		if first == nil {
			select {
			case <-ctx.Done():
				return
			case first = <-c.waiting:
			}
		}
		var batch []*pending
		batch, first = c.fill(first)
		c.store(ctx, batch)
	}
}

// fill takes what else waits. A webhook that came much later than the first, since the database was away, begins the
// next batch: those of a batch are held until the same time.
func (c *Committer) fill(first *pending) (batch []*pending, next *pending) {
	batch = []*pending{first}
	size := first.bytes()
	c.waitingBytes.Add(-size)
	for len(batch) < maxBatch && size < maxBatchBytes {
		select {
		case p := <-c.waiting:
			if p.event.ReceivedAt.Sub(first.event.ReceivedAt) > maxBatchSpread {
				return batch, p
			}
			batch = append(batch, p)
			size += p.bytes()
			c.waitingBytes.Add(-p.bytes())
		default:
			return batch, nil
		}
	}
	return batch, nil
}

// store commits a batch and answers all who wait for it.
func (c *Committer) store(ctx context.Context, batch []*pending) {
	slices.SortFunc(batch, func(a, b *pending) int {
		if order := bytes.Compare(a.event.EndpointID[:], b.event.EndpointID[:]); order != 0 {
			return order
		}
		return bytes.Compare(a.keyHash, b.keyHash)
	})
	deadline := c.deadline(batch)
	batch, repeats := splitRepeats(batch)
	for _, p := range batch {
		for i := range p.deliveries {
			d := &p.deliveries[i]
			d.leased = c.dispatcher.Reserve(d.destination, len(p.event.Body))
		}
	}
	started := time.Now()
	outcomes, err := c.write(ctx, batch, deadline)
	if err != nil && store.IsRowError(err) && len(batch) > 1 {
		// One webhook is refused: it must not take the others with it.
		c.unreserve(batch)
		half := len(batch) / 2
		c.store(ctx, append(batch[:half:half], repeatsOf(repeats, batch[:half])...))
		c.store(ctx, append(batch[half:], repeatsOf(repeats, batch[half:])...))
		return
	}
	if err != nil {
		c.unreserve(batch)
		cause := ErrUnavailable
		if store.IsRowError(err) {
			cause = ErrRejected
		}
		c.log.Error("events not stored", "events", len(batch), "error", err)
		for _, p := range slices.Concat(batch, repeats) {
			p.done <- outcome{err: cause}
		}
		return
	}
	c.handOver(batch, outcomes, started.Add(c.lease))
	for i, p := range batch {
		p.done <- outcomes[i]
	}
	for _, repeat := range repeats {
		i := slices.IndexFunc(batch, repeat.sameKey)
		o := outcomes[i]
		o.duplicate = true
		repeat.done <- o
	}
}

// handOver gives the new deliveries of this node to the dispatcher, and takes back the room of those that are not new.
func (c *Committer) handOver(batch []*pending, outcomes []outcome, leaseEnds time.Time) {
	debug := c.log.Enabled(context.Background(), slog.LevelDebug)
	for i, p := range batch {
		if debug {
			c.log.Debug("stored", "event_id", id.Event.Text(outcomes[i].eventID), "duplicate", outcomes[i].duplicate,
				"deliveries", len(p.deliveries), "payload_bytes", len(p.event.Body), "defect", p.event.Defect)
		}
		if outcomes[i].duplicate {
			c.unreserve(batch[i : i+1])
			continue
		}
		for _, job := range p.jobs(leaseEnds) {
			c.dispatcher.Hold(job)
		}
	}
}

func (c *Committer) unreserve(batch []*pending) {
	for _, p := range batch {
		for i := range p.deliveries {
			if d := &p.deliveries[i]; d.leased {
				d.leased = false
				c.dispatcher.Unreserve(d.destination, len(p.event.Body))
			}
		}
	}
}

// deadline is until when a batch is held while the database is away. A batch whose time was over before it was its turn
// still gets one try.
func (c *Committer) deadline(batch []*pending) time.Time {
	deadline := batch[0].event.ReceivedAt.Add(c.hold)
	for _, p := range batch {
		if t := p.event.ReceivedAt.Add(c.hold); t.Before(deadline) {
			deadline = t
		}
	}
	if earliest := time.Now().Add(minTryTime); deadline.Before(earliest) {
		return earliest
	}
	return deadline
}

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
func (c *Committer) writeOnce(ctx context.Context, batch []*pending, again bool) ([]outcome, error) {
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
		ids, err := c.db.CommitEvents(ctx, c.db.Engine(), c.params(todo))
		if err != nil {
			return nil, err
		}
		for _, eventID := range ids {
			stored[eventID] = true
		}
	}
	outcomes := make([]outcome, len(batch))
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
		}
	}
	return p
}

// splitRepeats takes out of a sorted batch all but the first webhook of each key.
func splitRepeats(batch []*pending) (firsts, repeats []*pending) {
	firsts = batch[:0:len(batch)]
	for _, p := range batch {
		if n := len(firsts); n > 0 && p.sameKey(firsts[n-1]) {
			repeats = append(repeats, p)
			continue
		}
		firsts = append(firsts, p)
	}
	return firsts, repeats
}

// repeatsOf are the repeats whose first webhook is in batch.
func repeatsOf(repeats, batch []*pending) []*pending {
	var of []*pending
	for _, repeat := range repeats {
		if slices.ContainsFunc(batch, repeat.sameKey) {
			of = append(of, repeat)
		}
	}
	return of
}

func (p *pending) sameKey(other *pending) bool {
	return len(p.keyHash) > 0 && p.event.EndpointID == other.event.EndpointID && bytes.Equal(p.keyHash, other.keyHash)
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
