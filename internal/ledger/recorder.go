package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// Results that may wait for a commit. Whoever has more waits in Submit, so that nothing more is sent than can be
	// recorded.
	maxWaiting = 4096
	maxBatch   = 1000
	// A batch waits so long for company once its first result is there: nobody waits for a record, and a batch of a hundred
	// costs the database a third of what ten batches of ten do.
	linger = 20 * time.Millisecond

	minRetryWait = 50 * time.Millisecond
	maxRetryWait = 2 * time.Second
	// One statement: far above what a batch takes, below what would look like a hang.
	statementTimeout = 20 * time.Second
	// A batch that made the code panic so often is taken apart like one that the database refuses.
	maxPanickedTries = 5
	// How far the database's clock may be behind that of a node, when rows are looked up by time: as far as that of a node which
	// has local time for UTC. An attempt that is missed would be recorded twice, or not erased.
	clockSlack = 24 * time.Hour
)

var errPanicked = errors.New("panic")

// Recorder commits results in batches. Make it with NewRecorder, start it with Run.
type Recorder struct {
	db       *store.DB
	nodeID   uuid.UUID
	logID    int32
	log      *slog.Logger
	recorded func(leaves int)
	usage    UsageMeter
	metrics  metrics
	waiting  chan Result
	closed   chan struct{}
	drained  chan struct{}

	taken []Result // out of waiting, and not finished: they are nowhere else. Only Run's goroutine uses it
}

// NewRecorder makes a recorder for the log with that id. recorded is called after each commit with its number of
// leaves, and must not block.
func NewRecorder(db *store.DB, nodeID uuid.UUID, logID int32, log *slog.Logger, recorded func(leaves int)) *Recorder {
	return &Recorder{
		db: db, nodeID: nodeID, logID: logID, log: log, recorded: recorded,
		waiting: make(chan Result, maxWaiting), closed: make(chan struct{}), drained: make(chan struct{}),
	}
}

// UsageMeter counts what tenants use.
type UsageMeter interface {
	Recorded(tenantID uuid.UUID, attempts, delivered, deadLettered int64)
}

// SetUsageMeter says who counts what is recorded. It belongs before Run.
func (r *Recorder) SetUsageMeter(meter UsageMeter) { r.usage = meter }

// Submit hands a result over. It waits while the recorder has all it may hold.
func (r *Recorder) Submit(result Result) {
	r.waiting <- result
}

// Close says that no more results come; Run returns when all are recorded.
func (r *Recorder) Close() { close(r.closed) }

// Wait returns when all results are recorded after Close, or when ctx ends.
func (r *Recorder) Wait(ctx context.Context) error {
	select {
	case <-r.drained:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d results not recorded: %w", len(r.waiting), ctx.Err())
	}
}

// Run records until ctx ends, or until Close was called and nothing waits any more. While the database is away results
// wait, and what came meanwhile lands as one batch. It may be run again after a panic: then it goes on with what it had in
// its hands.
func (r *Recorder) Run(ctx context.Context) error {
	if err := r.record(ctx, r.taken, 2); err != nil { // an earlier Run may have tried
		return err
	}
	buffer := make([]Result, 0, maxBatch)
	for {
		batch := buffer[:0]
		select {
		case <-ctx.Done():
			return ctx.Err()
		case result := <-r.waiting:
			batch = append(batch, result)
		case <-r.closed:
			select {
			case result := <-r.waiting:
				batch = append(batch, result)
			default:
				close(r.drained)
				return nil
			}
		}
		r.taken = r.fill(ctx, batch)
		fault.Pass(fault.RecorderTaken)
		if err := r.record(ctx, r.taken, 1); err != nil {
			return err
		}
	}
}

// fill takes what comes within the linger, up to a full batch.
func (r *Recorder) fill(ctx context.Context, batch []Result) []Result {
	timer := time.NewTimer(linger)
	defer timer.Stop()
	for len(batch) < maxBatch {
		select {
		case result := <-r.waiting:
			batch = append(batch, result)
		case <-timer.C:
			return batch
		case <-r.closed:
			return r.fillNow(batch)
		case <-ctx.Done():
			return batch
		}
	}
	return batch
}

// fillNow takes what waits already.
func (r *Recorder) fillNow(batch []Result) []Result {
	for len(batch) < maxBatch {
		select {
		case result := <-r.waiting:
			batch = append(batch, result)
		default:
			return batch
		}
	}
	return batch
}

// record commits a batch, however long that takes, from try number try on. The error is ctx's.
func (r *Recorder) record(ctx context.Context, results []Result, try int) error {
	if len(results) == 0 {
		return nil
	}
	batch, indexes, err := r.write(ctx, results, try)
	switch {
	case refused(err) && len(results) > 1:
		// As a second try: a batch whose code panicked may be committed all the same.
		return r.apart(results, func(half []Result) error { return r.record(ctx, half, 2) })
	case refused(err):
		r.logRefused(batch, err)
	case err != nil:
		return err
	default:
		if err := r.recordFenced(ctx, batch.fenced(indexes), indexes); err != nil {
			return err
		}
	}
	r.finish(batch, indexes)
	return nil
}

// write commits a batch, from try number try on, until it is committed or refused.
func (r *Recorder) write(ctx context.Context, results []Result, try int) (b *batch, indexes map[uuid.UUID]int64, err error) {
	if b, err = newBatch(r.nodeID, r.logID, results); err != nil {
		return b, nil, &refusal{err}
	}
	started := time.Now()
	defer func() { r.metrics.batch.Record(time.Since(started)) }()
	err = r.patiently(ctx, len(results), try, func(ctx context.Context, try int) error {
		indexes, err = r.commit(ctx, b, try, started)
		return err
	})
	if err == nil && r.usage != nil {
		b.meter(indexes, r.usage)
	}
	return b, indexes, err
}

// patiently calls do until it succeeds or would fail again however often it is tried: then the error is a refusal. Any other
// error is ctx's.
func (r *Recorder) patiently(ctx context.Context, results, try int, do func(ctx context.Context, try int) error) error {
	for wait := minRetryWait; ; try++ {
		err := r.once(ctx, try, do)
		if err == nil {
			return nil
		}
		if store.IsRowError(err) || errors.Is(err, errPanicked) && try >= maxPanickedTries {
			return &refusal{err}
		}
		r.metrics.retries.Add(1)
		r.log.Warn("results not recorded, trying again", "results", results, "try", try, "error", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("record %d results: %w", results, ctx.Err())
		case <-time.After(wait):
		}
		wait = min(2*wait, maxRetryWait)
	}
}

// once calls do within a statement's time. A panic is an error: the results are tried again, as they are nowhere else.
func (r *Recorder) once(ctx context.Context, try int, do func(ctx context.Context, try int) error) (err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("%w: %v", errPanicked, panicked)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	return do(ctx, try)
}

// refusal is the error of a batch that would fail again, however often it is tried.
type refusal struct{ error }

func (r *refusal) Unwrap() error { return r.error }

func refused(err error) bool {
	var r *refusal
	return errors.As(err, &r)
}

// apart records the halves of a batch of which one result is refused: it must not hold up the others.
func (r *Recorder) apart(results []Result, record func(half []Result) error) error {
	n := len(results)
	if err := record(results[:n/2]); err != nil {
		return err
	}
	return record(results[n/2:])
}

// logRefused tells of a result that is refused alone. Its lease runs out and the takeover records the attempt as unknown: not
// silent, and in nobody's way.
func (r *Recorder) logRefused(b *batch, err error) {
	r.metrics.refused.Add(1)
	duty, eventID := b.results[0].Duty, uuid.Nil
	if duty.Event != nil { // what is wrong with the result may be just that
		eventID = duty.Event.ID
	}
	r.log.Error("result refused", "event_id", id.Event.Text(eventID), "delivery_id", id.Delivery.Text(duty.DeliveryID), "error", err)
}

// commit writes the batch once, and returns its leaf indexes. After a failed try it first looks whether that one was
// committed although its answer was lost.
func (r *Recorder) commit(ctx context.Context, b *batch, try int, since time.Time) (map[uuid.UUID]int64, error) {
	if try > 1 {
		indexes, err := r.committed(ctx, b, since)
		if err != nil || indexes != nil {
			return indexes, err
		}
	}
	if err := fault.Point(fault.RecorderBeforeCommit); err != nil {
		return nil, err
	}
	rows, err := r.db.RecordAttempts(ctx, r.db.Engine(), b.params)
	if err != nil {
		return nil, err
	}
	if err := fault.Point(fault.RecorderAfterCommit); err != nil {
		return nil, err
	}
	indexes := make(map[uuid.UUID]int64, len(rows))
	for _, row := range rows {
		indexes[row.AttemptID] = row.LeafIndex
	}
	return indexes, nil
}

// committed returns the leaf indexes of a batch that is in the ledger already, nil when it is not. A statement whose
// connection broke may still be running: it is waited for first.
func (r *Recorder) committed(ctx context.Context, b *batch, since time.Time) (map[uuid.UUID]int64, error) {
	if err := r.db.AwaitRecorder(ctx, r.db.Engine(), r.nodeID); err != nil {
		return nil, fmt.Errorf("wait for the last try: %w", err)
	}
	rows, err := r.db.RecordedAttempts(ctx, r.db.Engine(), b.params.LeafIds, since.Add(-clockSlack))
	if err != nil {
		return nil, fmt.Errorf("look up results: %w", err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	indexes := make(map[uuid.UUID]int64, len(rows))
	for _, row := range rows {
		indexes[row.AttemptID] = row.LeafIndex
	}
	return indexes, nil
}

func (r *Recorder) finish(b *batch, indexes map[uuid.UUID]int64) {
	r.taken = r.taken[len(b.results):]
	debug := r.log.Enabled(context.Background(), slog.LevelDebug)
	for i, result := range b.results {
		index, found := indexes[b.leafOf[i]]
		if !found {
			index = -1 // a dead letter whose lease was lost: another node writes it
		}
		if debug {
			r.log.Debug("recorded", "event_id", id.Event.Text(result.Duty.Event.ID), "delivery_id",
				id.Delivery.Text(result.Duty.DeliveryID), "leaf_index", index)
		}
		if result.Recorded != nil {
			result.Recorded(index)
		}
	}
	for i, leaf := range b.params.DeadLeafIds {
		if index, found := indexes[leaf]; found && debug {
			r.log.Debug("given up", "event_id", id.Event.Text(b.params.DeadEventIds[i]), "delivery_id", id.Delivery.Text(b.params.DeadLetterIds[i]),
				"reason", leafv1.DeadLetterReason(b.params.DeadReasons[i]).String(), "leaf_index", index)
		}
	}
	r.metrics.leaves.Add(len(indexes))
	if r.recorded != nil {
		r.recorded(len(indexes))
	}
}
