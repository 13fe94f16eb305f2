package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

// A listening destination is a session of ListenService: what goes to it goes down a stream, to a machine that no URL
// reaches. Like a paused one it is never active, so that its deliveries are held; the node with the stream takes them from
// there, and any node hands what was reported to the ledger. Nothing on the way of other deliveries knows of it.

const (
	// maxListeners is how many streams a node has open at most: each asks the queue four times a second.
	maxListeners = 100
	// listenInterval is how often a stream looks for deliveries that no one has told it of, such as retries.
	listenInterval = 250 * time.Millisecond
	// maxListenFront is how many of the queue's newest due rows are looked at for retries.
	maxListenFront = 500
	// maxListenBytes of payload are taken at once.
	maxListenBytes = 16 << 20
	// ReportTime is how long a client has to report.
	ReportTime = 30 * time.Second
	// lastReports is how long a stopping node waits for reports of what is in flight.
	lastReports = 3 * time.Second
	// A session outlives its stream for listenSilence. While one is open, the session is touched in each tendInterval.
	listenSilence = 10 * time.Minute
	tendInterval  = 30 * time.Second
	maxEnded      = 100
	// Attempts are remembered for a while after their time, longer than a lease in all, so that a late report is told from
	// a wrong one.
	keepListenAttempts = time.Minute
	maxForgotten       = 10_000
)

// What Listen and Report refuse.
var (
	ErrTooManyListeners = errors.New("the node has as many listening streams as it may have")
	ErrListenEnded      = errors.New("the session has ended")
	ErrListenReplaced   = errors.New("the session was resumed by another stream")
	ErrListenStopping   = errors.New("the node is stopping")
	ErrListenSilent     = errors.New("the client reports nothing")
	ErrNotInFlight      = errors.New("the attempt waits for no report")
)

// Listeners are the listening streams of a node.
type Listeners struct {
	db         *store.DB
	nodeID     uuid.UUID
	routes     *route.Table
	claimer    *Claimer
	dispatcher *Dispatcher // has the streams, by destination
	log        *slog.Logger
	lookAgain  chan struct{} // whether the sessions still have their streams

	mu   sync.Mutex // of Open and Close
	open map[*Listener]struct{}
}

// NewListeners makes the Listeners of a node. They claim with claimer and record with dispatcher.
func NewListeners(db *store.DB, nodeID uuid.UUID, routes *route.Table, claimer *Claimer, dispatcher *Dispatcher, log *slog.Logger) *Listeners {
	return &Listeners{
		db: db, nodeID: nodeID, routes: routes, claimer: claimer, dispatcher: dispatcher, log: log,
		lookAgain: make(chan struct{}, 1), open: make(map[*Listener]struct{}),
	}
}

// Run keeps the sessions of this node's streams alive, and ends sessions that nobody resumed, until ctx ends. Every node that
// serves the API does.
func (l *Listeners) Run(ctx context.Context) error {
	ticker := time.NewTicker(tendInterval)
	defer ticker.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.lookAgain:
			err = l.touch(ctx)
		case <-ticker.C:
			_, forgotten := l.db.DeleteListenAttempts(ctx, l.db.Engine(), keepListenAttempts.Seconds(), maxForgotten)
			err = errors.Join(l.touch(ctx), l.EndSilent(ctx), forgotten)
		}
		if err != nil && ctx.Err() == nil {
			l.log.Warn("listening sessions not looked after, trying again", "error", err)
		}
	}
}

// touch says that the sessions have streams, and ends those streams that are not their sessions' newest any more.
func (l *Listeners) touch(ctx context.Context) error {
	l.mu.Lock()
	streams := make(map[uuid.UUID]*Listener, len(l.open))
	for listener := range l.open {
		streams[listener.streamID] = listener
	}
	l.mu.Unlock()
	var tenantIDs, sessionIDs, streamIDs []uuid.UUID
	for streamID, listener := range streams {
		tenantIDs, sessionIDs, streamIDs = append(tenantIDs, listener.tenantID), append(sessionIDs, listener.session), append(streamIDs, streamID)
	}
	if len(streams) == 0 {
		return nil
	}
	newest, err := l.db.TouchListenSessions(ctx, l.db.Engine(), tenantIDs, sessionIDs, streamIDs)
	if err != nil {
		return fmt.Errorf("touch listening sessions: %w", err)
	}
	for _, streamID := range newest {
		delete(streams, streamID)
	}
	for _, listener := range streams {
		listener.replace()
	}
	return nil
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

// Stream is a session's stream: its newest, as it is written down.
type Stream struct {
	TenantID, SessionID, DestinationID, ID uuid.UUID
	// MaxInFlight is the largest number of attempts that are sent and not yet reported.
	MaxInFlight int
}

// Open makes the stream of a session; Close it. Those that the session has already end, on whichever node.
func (l *Listeners) Open(stream Stream) (*Listener, error) {
	listener := &Listener{
		all: l, tenantID: stream.TenantID, session: stream.SessionID, destinationID: stream.DestinationID, streamID: stream.ID,
		maxInFlight: stream.MaxInFlight, wake: make(chan struct{}, 1), replaced: make(chan struct{}), inFlight: make(map[uuid.UUID]time.Time),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	last, here := l.dispatcher.listened.Load(stream.DestinationID)
	if here {
		last.(*Listener).replace()
	} else if len(l.open) >= maxListeners {
		return nil, ErrTooManyListeners
	}
	l.open[listener] = struct{}{}
	l.dispatcher.listened.Store(stream.DestinationID, listener)
	l.dispatcher.notices.note(stream.DestinationID.String(), noticeOpened, stream.ID.String())
	return listener, nil
}
