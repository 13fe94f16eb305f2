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
	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// What may wait for a commit: at 10,000 webhooks a second some 0.8 s of them, and at most this much memory.
	maxWaiting      = 8192
	maxWaitingBytes = 64 << 20

	maxBatch      = 500
	maxBatchBytes = 8 << 20
	// Webhooks of one batch came within this time of the first.
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
	metrics      metrics
	tracer       *telemetry.Tracer
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
	if !c.enqueue(p) {
		p.answer(outcome{err: ErrOverloaded})
		return Receipt{}, ErrOverloaded
	}
	select {
	case o := <-p.done:
		return o.receipt()
	case <-ctx.Done():
		return Receipt{}, ctx.Err()
	}
}

// enqueue puts p where the flusher takes it from, and reports whether there was room.
func (c *Committer) enqueue(p *pending) bool {
	if c.waitingBytes.Add(p.bytes()) > maxWaitingBytes {
		c.waitingBytes.Add(-p.bytes())
		return false
	}
	select {
	case c.waiting <- p:
		return true
	default:
		c.waitingBytes.Add(-p.bytes())
		return false
	}
}

// Run stores what comes until ctx ends. Whoever ends ctx has stopped the requests before: what waits then is told
// ErrUnavailable.
func (c *Committer) Run(ctx context.Context) error {
	c.flush(ctx)
	for {
		select {
		case p := <-c.waiting:
			p.answer(outcome{err: ErrUnavailable})
		default:
			return ctx.Err()
		}
	}
}

// flush stores batch after batch until ctx ends. There is one flusher: two would make batches half as large, and cost more
// than they overlap (docs/performance.md).
func (c *Committer) flush(ctx context.Context) {
	var first *pending // of the next batch
	var batch []*pending
	// After a panic those who wait for an answer get one, and come again: whether their events are stored is not known.
	defer func() {
		if first != nil {
			batch = append(batch, first)
		}
		for _, p := range batch {
			p.answer(outcome{err: ErrUnavailable}) // unless it was answered before
		}
	}()
	for {
		if first == nil {
			select {
			case <-ctx.Done():
				return
			case first = <-c.waiting:
			}
		}
		batch, first = c.fill(first)
		fault.Pass(fault.IngestTaken)
		c.store(ctx, slices.Clone(batch)) // which sorts it, and takes repeats out
		batch = nil
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
			d.leased = d.orderKey == nil && c.dispatcher.Reserve(d.destination, len(p.event.Body))
		}
	}
	started := time.Now()
	outcomes, err := c.write(ctx, batch, deadline)
	c.metrics.commit(started, err)
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
			p.answer(outcome{err: cause})
		}
		if c.tracer.On() {
			c.trace(batch, nil, started, "not_stored")
		}
		return
	}
	c.handOver(batch, outcomes, started.Add(c.lease))
	c.metrics.taken(batch, outcomes, len(repeats))
	for i, p := range batch {
		p.answer(outcomes[i])
	}
	for _, repeat := range repeats {
		i := slices.IndexFunc(batch, repeat.sameKey)
		o := outcomes[i]
		o.duplicate = true
		repeat.answer(o)
	}
	if c.tracer.On() {
		c.trace(batch, outcomes, started, "")
	}
}

// handOver gives the new deliveries of this node to the dispatcher, and takes back the room of those that are not new.
func (c *Committer) handOver(batch []*pending, outcomes []outcome, leaseEnds time.Time) {
	held := 0
	defer func() {
		if panicked := recover(); panicked != nil {
			// They are committed and leased: the claim brings them when the leases end.
			c.log.Error("panic while handing over", "panic", fmt.Sprint(panicked))
			c.unreserve(batch[held:])
		}
	}()
	fault.Pass(fault.IngestHandOver)
	debug := c.log.Enabled(context.Background(), slog.LevelDebug)
	for i, p := range batch {
		held = i + 1
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
		for i := range p.deliveries {
			d := &p.deliveries[i]
			if d.orderKey != nil {
				c.dispatcher.NoteTurn(d.destination.ID, d.orderKey)
			}
			if d.destination != nil && d.destination.Listens {
				c.dispatcher.NoteListened(d.destination.ID)
			}
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
