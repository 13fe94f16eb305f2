package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

// A listening destination is a session of ListenService: what goes to it goes down a stream, to a machine that no URL
// reaches. Like a paused one it is never active, so that its deliveries are held; the node with the stream takes them from
// there, and hands what was reported to the ledger. Nothing on the way of other deliveries knows of it.

const (
	// maxListeners is how many streams a node has open at most: each asks the queue ten times a second.
	maxListeners = 100
	// listenInterval is how often a stream looks for deliveries that no one has told it of: other nodes' and retries.
	listenInterval = 100 * time.Millisecond
	// maxListenFront is how many of the queue's newest due rows are looked at for new deliveries.
	maxListenFront = 500
	// maxListenBytes of payload are taken at once.
	maxListenBytes = 16 << 20
	// ReportTime is how long a client has to report.
	ReportTime = 30 * time.Second
	// A session outlives its stream for listenSilence. touchInterval, while one is open, is a fraction of that.
	listenSilence = 10 * time.Minute
	touchInterval = time.Minute
	endInterval   = 30 * time.Second
	maxEnded      = 100
)

// What Listen and Report refuse.
var (
	ErrTooManyListeners = errors.New("the node has as many listening streams as it may have")
	ErrListenEnded      = errors.New("the session has ended")
	ErrListenReplaced   = errors.New("the session was resumed by another stream")
	ErrNotInFlight      = errors.New("the attempt is not in flight on this node")
)

// Listeners are the listening streams of a node.
type Listeners struct {
	db         *store.DB
	nodeID     uuid.UUID
	routes     *route.Table
	claimer    *Claimer
	dispatcher *Dispatcher
	log        *slog.Logger

	mu       sync.Mutex
	sessions map[uuid.UUID]*Listener
}

// NewListeners makes the Listeners of a node. They claim with claimer and record with dispatcher.
func NewListeners(db *store.DB, nodeID uuid.UUID, routes *route.Table, claimer *Claimer, dispatcher *Dispatcher, log *slog.Logger) *Listeners {
	return &Listeners{db: db, nodeID: nodeID, routes: routes, claimer: claimer, dispatcher: dispatcher, log: log, sessions: make(map[uuid.UUID]*Listener)}
}

// Run ends sessions that nobody resumed, until ctx ends. Every node that serves the API does.
func (l *Listeners) Run(ctx context.Context) error {
	return every(ctx, endInterval, func() {
		if err := l.EndSilent(ctx); err != nil && ctx.Err() == nil {
			l.log.Warn("listening sessions not ended, trying again", "error", err)
		}
	})
}

// EndSilent deletes the destinations of sessions that are over: what still waits for them becomes dead letters, as for any other.
func (l *Listeners) EndSilent(ctx context.Context) error {
	return pgx.BeginFunc(ctx, l.db.Engine(), func(tx pgx.Tx) error {
		ended, err := l.db.EndedListenSessions(ctx, tx, listenSilence.Seconds(), maxEnded)
		if err != nil {
			return fmt.Errorf("look for sessions that are over: %w", err)
		}
		for _, session := range ended {
			if err := l.db.DeleteDestinations(ctx, tx, session.TenantID, []uuid.UUID{session.DestinationID}); err != nil {
				return fmt.Errorf("delete the destination of a session: %w", err)
			}
			err := l.db.WriteAuditEntry(ctx, tx, store.WriteAuditEntryParams{
				TenantID: session.TenantID, EntryID: id.New(), Actor: "system", Action: "ListenSessionEnded",
				ResourceID: id.Destination.Text(session.DestinationID), Detail: "nobody resumed " + id.Session.Text(session.SessionID),
			})
			if err != nil {
				return fmt.Errorf("write audit entry: %w", err)
			}
		}
		return nil
	})
}

// Offer is one try of a delivery, to be sent down a stream.
type Offer struct {
	AttemptID uuid.UUID
	Job       Job
	Headers   http.Header
	Deadline  time.Time

	offered time.Time
}

// Listener is one open stream of a session.
type Listener struct {
	all               *Listeners
	tenantID, session uuid.UUID
	destinationID     uuid.UUID
	maxInFlight       int
	wake              chan struct{}
	replaced          chan struct{}
	touched           time.Time

	mu       sync.Mutex
	inFlight map[uuid.UUID]*Offer
}

// Open makes the stream of a session; Close it. One that the session has on this node already ends.
func (l *Listeners) Open(tenantID, session, destinationID uuid.UUID, maxInFlight int) (*Listener, error) {
	listener := &Listener{
		all: l, tenantID: tenantID, session: session, destinationID: destinationID, maxInFlight: maxInFlight,
		wake: make(chan struct{}, 1), replaced: make(chan struct{}), inFlight: make(map[uuid.UUID]*Offer), touched: time.Now(),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if last := l.sessions[session]; last != nil {
		close(last.replaced)
	} else if len(l.sessions) >= maxListeners {
		return nil, ErrTooManyListeners
	}
	l.sessions[session] = listener
	l.dispatcher.listened.Store(destinationID, listener.wake)
	return listener, nil
}

// Close ends the stream. What was sent and not reported may have arrived: it becomes attempts with outcome UNKNOWN.
func (s *Listener) Close() {
	s.all.mu.Lock()
	if s.all.sessions[s.session] == s {
		delete(s.all.sessions, s.session)
		s.all.dispatcher.listened.Delete(s.destinationID)
	}
	s.all.mu.Unlock()
	s.mu.Lock()
	left := s.inFlight
	s.inFlight = nil
	s.mu.Unlock()
	for _, offer := range left {
		s.record(offer, s.unknown(offer), nil)
	}
	s.touched = time.Time{} // the session's time without a stream begins now
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	s.touch(ctx)
}

// Run takes deliveries and gives them to send, until ctx ends, send fails, the session ends, or another stream takes over.
// It calls send at least ten times a second, often without any offers.
func (s *Listener) Run(ctx context.Context, send func([]*Offer) error) error {
	ticker := time.NewTicker(listenInterval)
	defer ticker.Stop()
	for {
		s.expire(time.Now())
		offers, err := s.take(ctx)
		switch {
		case errors.Is(err, ErrListenEnded):
			return err
		case err != nil && ctx.Err() == nil:
			s.all.log.Warn("nothing taken for a listening stream, trying again", "destination_id", id.Destination.Text(s.destinationID), "error", err)
		}
		if err := send(offers); err != nil {
			return err
		}
		s.touch(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.replaced:
			return ErrListenReplaced
		case <-s.wake:
		case <-ticker.C:
		}
	}
}

func (s *Listener) touch(ctx context.Context) {
	if time.Since(s.touched) < touchInterval {
		return
	}
	if err := s.all.db.TouchListenSession(ctx, s.all.db.Engine(), s.tenantID, s.session); err != nil {
		s.all.log.Warn("listening session not touched, trying again", "error", err)
		return
	}
	s.touched = time.Now()
}

// take leases what the session has room for.
func (s *Listener) take(ctx context.Context) ([]*Offer, error) {
	s.mu.Lock()
	room := s.maxInFlight - len(s.inFlight)
	s.mu.Unlock()
	snapshot := s.all.routes.Snapshot()
	destination := snapshot.Destination(s.destinationID)
	if destination == nil && snapshot.Removed(s.destinationID) {
		return nil, ErrListenEnded
	}
	room = min(room, s.all.dispatcher.Room())
	if destination == nil || !destination.Listens || room <= 0 {
		return nil, nil
	}
	started := time.Now()
	claimed, err := s.all.db.ClaimListened(ctx, s.all.db.Engine(), store.ClaimListenedParams{
		NodeID: s.all.nodeID, LeaseSeconds: DefaultLease.Seconds(), HeldUntil: heldUntil(s.destinationID), TenantID: s.tenantID,
		DestinationID: s.destinationID, MaxRows: int32(room), MaxFront: maxListenFront,
	})
	if err != nil || len(claimed) == 0 {
		return nil, err
	}
	rows := make([]store.ClaimDueRow, len(claimed))
	for i, row := range claimed {
		rows[i] = store.ClaimDueRow(row)
	}
	return s.offer(ctx, destination, rows, started)
}

// offer makes offers of claimed rows, as far as their payloads may be held; the rest is given back.
func (s *Listener) offer(ctx context.Context, destination *route.Destination, rows []store.ClaimDueRow, started time.Time) ([]*Offer, error) {
	var unsent []store.ClaimDueRow
	defer func() { s.all.claimer.giveBack(ctx, unsent) }()
	events, err := s.all.claimer.load(ctx, rows, min(maxListenBytes, s.all.dispatcher.RoomBytes()))
	if err != nil {
		unsent = rows
		return nil, err
	}
	var offers []*Offer
	for _, row := range rows {
		event := events[row.EventID]
		if event == nil {
			unsent = append(unsent, row)
			continue
		}
		job := Job{
			Duty:        ledger.Duty{Event: event, DeliveryID: row.DeliveryID, DestinationID: s.destinationID, Attempts: int(row.Attempts)},
			Destination: destination, OrderKey: row.OrderKey, LeaseEnds: started.Add(DefaultLease),
		}
		now := time.Now()
		offers = append(offers, &Offer{
			AttemptID: id.New(), Job: job, Headers: s.all.dispatcher.sender.headers(job, &ledger.Attempt{StartedAt: now}), Deadline: now.Add(ReportTime), offered: now,
		})
	}
	if err := s.all.claimer.cancelVanished(ctx, unsent); err != nil {
		s.all.log.Warn("deliveries without an event not ended, trying again", "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, offer := range offers {
		s.all.dispatcher.reserve(nil, len(offer.Job.Event.Body))
		s.inFlight[offer.AttemptID] = offer
	}
	return offers, nil
}
