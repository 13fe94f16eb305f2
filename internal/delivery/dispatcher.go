package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
)

// What a node may hold in memory, waiting and in flight.
const (
	maxHeld      = 8192
	maxHeldBytes = 96 << 20
	// Of one destination: enough to keep its lane busy, not enough to fill the node.
	maxHeldLane = 2048
)

// Dispatcher holds the jobs of this node and sends them, each destination in its own lane.
type Dispatcher struct {
	nodeID   uuid.UUID
	sender   *Sender
	recorder *ledger.Recorder
	leases   *Leases
	health   *health
	log      *slog.Logger
	metrics  metrics
	tracer   *telemetry.Tracer
	recorded func(Recorded) // of attempts whose trace is exported

	nodes     atomic.Int64 // that are alive, this one too; zero until that is known
	held      atomic.Int64
	heldBytes atomic.Int64
	lanes     sync.Map // destination id → *lane
	turns     *turns
	listened  sync.Map // destination id → *Listener of this node
	notices   *listenNotices
	stopped   atomic.Bool
	elsewhere bool // other nodes send
	busy      sync.WaitGroup

	demanding sync.Mutex
	demands   map[uuid.UUID]disableDemand // destinations that an attempt says must be disabled
}

// NewDispatcher makes a dispatcher whose results go to recorder.
func NewDispatcher(nodeID uuid.UUID, sender *Sender, recorder *ledger.Recorder, leases *Leases, log *slog.Logger) *Dispatcher {
	return &Dispatcher{nodeID: nodeID, sender: sender, recorder: recorder, leases: leases, health: newHealth(), turns: newTurns(), notices: newListenNotices(), log: log}
}

// SetBreakerPause sets how long circuit breakers stay open at first. It must be called before anything is held.
func (d *Dispatcher) SetBreakerPause(pause time.Duration) { d.health.rules = newBreakerRules(pause) }

// SendElsewhere leaves all deliveries to other nodes: there is never room for one here. It must be called before anything is
// held.
func (d *Dispatcher) SendElsewhere() { d.elsewhere = true }

// Reserve takes room for one delivery, and reports whether there was any. Each reservation ends in Hold or Unreserve.
// A delivery without room goes to the queue, due at once, for whichever node has room.
func (d *Dispatcher) Reserve(destination *route.Destination, bytes int) bool {
	if d.elsewhere || d.stopped.Load() {
		return false
	}
	if destination != nil && (!destination.Active || d.health.isShut(destination.ID) || d.laneRoom(destination, true) <= 0) {
		return false
	}
	if d.held.Load() >= maxHeld || d.heldBytes.Load()+int64(bytes) > maxHeldBytes {
		return false
	}
	d.reserve(destination, bytes)
	return true
}

func (d *Dispatcher) reserve(destination *route.Destination, bytes int) {
	d.held.Add(1)
	d.heldBytes.Add(int64(bytes))
	if destination != nil {
		d.lane(destination.ID).held.Add(1)
	}
}

// Unreserve gives back the room of a delivery that was not committed, or that is done.
func (d *Dispatcher) Unreserve(destination *route.Destination, bytes int) {
	d.held.Add(-1)
	d.heldBytes.Add(-int64(bytes))
	if destination != nil {
		d.lane(destination.ID).held.Add(-1)
	}
}

// Room is how many more deliveries may be held.
func (d *Dispatcher) Room() int { return int(maxHeld - d.held.Load()) }

// RoomBytes is how many more bytes of payload may be held.
func (d *Dispatcher) RoomBytes() int64 { return maxHeldBytes - d.heldBytes.Load() }

// Hold takes over a job whose room was reserved. It never blocks.
func (d *Dispatcher) Hold(job Job) {
	if job.Destination == nil || job.LostOwner != uuid.Nil || d.stopped.Load() {
		d.busy.Add(1)
		go func() {
			defer d.busy.Done()
			d.settle(job)
		}()
		return
	}
	d.lane(job.Destination.ID).push(job)
}

var destinationGone = ledger.Verdict{
	Dead: leafv1.DeadLetterReason_DEAD_LETTER_REASON_DESTINATION_GONE, Diagnosis: "the destination was deleted",
}

// settle deals with a job that is not to be sent: a defect's dead letter, a lost node's attempt, or a late hand-over.
func (d *Dispatcher) settle(job Job) {
	defer d.leave(job)
	fault.Pass(fault.DeliverySettle)
	switch {
	case job.DestinationID == uuid.Nil:
		d.submit(job, nil, ledger.Verdict{
			Dead: leafv1.DeadLetterReason_DEAD_LETTER_REASON_MALFORMED_PAYLOAD, Diagnosis: job.Event.Defect,
		})
	case job.LostOwner != uuid.Nil:
		if job.Destination == nil {
			d.submit(job, ledger.LostAttempt(job.LostOwner, ""), destinationGone)
			return
		}
		attempt := ledger.LostAttempt(job.LostOwner, job.Destination.URL)
		d.submit(job, attempt, d.judge(job, attempt))
	case job.Destination == nil:
		d.submit(job, nil, destinationGone)
	default:
		d.giveBack([]Job{job})
	}
}

// leave is deferred around what is done with a job. After a panic the job is left to its lease: whoever claims it then
// knows that an attempt may have been made. The node goes on; a goroutine has nobody else to catch its panic.
func (d *Dispatcher) leave(job Job) {
	if panicked := recover(); panicked != nil {
		d.log.Error("panic, the delivery waits until its lease ends", "event_id", id.Event.Text(job.Event.ID), "delivery_id", id.Delivery.Text(job.DeliveryID),
			"panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
		d.Unreserve(job.Destination, len(job.Event.Body))
	}
}

// deliver makes one attempt of a job and hands the result to the ledger.
func (d *Dispatcher) deliver(job Job) {
	defer d.leave(job)
	attempt := d.attempt(job)
	attempt.NodeID = d.nodeID
	attempt.Late = time.Now().After(job.LeaseEnds)
	if d.log.Enabled(context.Background(), slog.LevelDebug) {
		d.log.Debug("attempted", "event_id", id.Event.Text(job.Event.ID), "delivery_id", id.Delivery.Text(job.DeliveryID),
			"attempt", job.Attempts+1, "host", hostOf(job.Destination.URL), "status", attempt.StatusCode, "duration", attempt.Duration,
			"diagnosis", ownWords(attempt))
	}
	d.health.note(job.Destination, attempt)
	d.metrics.sent(job, attempt)
	d.submit(job, attempt, d.judge(job, attempt))
}

// hostOf is what a log may say of a URL: a path or a query can be a credential by itself.
func hostOf(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return u.Host
}

// attempt sends a job. A panic on the way is a failed attempt, not the end of the process: nobody else would record it.
func (d *Dispatcher) attempt(job Job) (attempt *ledger.Attempt) {
	started := time.Now()
	defer func() {
		if panicked := recover(); panicked != nil {
			d.log.Error("panic while sending", "event_id", id.Event.Text(job.Event.ID), "delivery_id", id.Delivery.Text(job.DeliveryID), "panic", fmt.Sprint(panicked), "stack", string(debug.Stack()))
			attempt = &ledger.Attempt{ID: id.New(), URL: job.Destination.URL, StartedAt: started, Duration: time.Since(started)}
			fail(attempt, leafv1.Failure_FAILURE_PROTOCOL, errPanicked)
		}
	}()
	fault.Pass(fault.DeliveryBeforeSend)
	attempt = d.sender.Send(context.Background(), job)
	fault.Pass(fault.DeliveryAfterSend)
	return attempt
}

var errPanicked = errors.New("internal error while sending; the request may have arrived")

func (d *Dispatcher) judge(job Job, attempt *ledger.Attempt) ledger.Verdict {
	now := time.Now()
	return judge(job.Destination.Retry, attempt, job.Attempts+1, now.Sub(job.Event.ReceivedAt), rand.Float64(), now)
}

func (d *Dispatcher) submit(job Job, attempt *ledger.Attempt, verdict ledger.Verdict) {
	if verdict.Disable.Reason != kapselv1.DisableReason_DISABLE_REASON_UNSPECIFIED && job.Destination != nil {
		d.demandDisable(job.DestinationID, disableDemand{tenantID: job.Event.TenantID, eventID: job.Event.ID, disable: verdict.Disable, knownAt: job.Destination.UpdatedAt})
	}
	d.metrics.settled(job, attempt, verdict)
	result := ledger.Result{
		Duty: job.Duty, Attempt: attempt, Verdict: verdict,
		Recorded: func(int64) {
			d.Unreserve(job.Destination, len(job.Event.Body))
			if job.OrderKey != nil {
				d.NoteTurn(job.DestinationID, job.OrderKey)
			}
		},
	}
	if d.tracer.On() && attempt != nil && !attempt.StartedAt.IsZero() {
		result.Recorded = d.trace(job, attempt, result.Recorded)
	}
	d.recorder.Submit(result)
}

// canSend reports whether a job may be sent, and a send that begins now ends before the job's lease.
func (d *Dispatcher) canSend(job Job) bool { return d.canSendAfter(job, 0) }

// canSendAfter reports whether a send that begins after a wait ends before the job's lease.
func (d *Dispatcher) canSendAfter(job Job, wait time.Duration) bool {
	if d.stopped.Load() || !job.Probe && d.health.isShut(job.DestinationID) {
		return false
	}
	return time.Until(job.LeaseEnds) >= wait+job.Destination.Timeout+sendMargin
}

// giveBack returns jobs to the queue unsent.
func (d *Dispatcher) giveBack(jobs []Job) {
	if len(jobs) == 0 {
		return
	}
	d.leases.Release(context.Background(), jobs)
	for _, job := range jobs {
		d.Unreserve(job.Destination, len(job.Event.Body))
	}
}

// Stop takes no more jobs, gives back those that were not sent, and waits until those in flight have handed in their
// results, or ctx ends.
func (d *Dispatcher) Stop(ctx context.Context) error {
	d.stopped.Store(true)
	var unsent []Job
	d.lanes.Range(func(_, value any) bool {
		unsent = append(unsent, value.(*lane).drain()...)
		return true
	})
	d.giveBack(unsent)
	done := make(chan struct{})
	go func() {
		d.busy.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Dispatcher) lane(destinationID uuid.UUID) *lane {
	if l, found := d.lanes.Load(destinationID); found {
		return l.(*lane)
	}
	l, _ := d.lanes.LoadOrStore(destinationID, &lane{dispatcher: d})
	return l.(*lane)
}
