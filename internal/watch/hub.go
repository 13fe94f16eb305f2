package watch

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/store"
)

const (
	// interval at which the hub looks, so that a change is told within a second.
	interval = 300 * time.Millisecond
	// lookTimeout bounds one look: far above what it takes, below what would look like a hang.
	lookTimeout = 5 * time.Second
	// MaxStreams of a node, and of one tenant on it.
	MaxStreams          = 1000
	MaxStreamsOfATenant = 100
)

// ErrTooMany says that there are as many streams as there may be.
var ErrTooMany = errors.New("too many streams of events")

// Hub tells the streams of this node whether anything of their tenant has changed, with one look for all of them; a stream reads what
// it is itself. It holds no changes, so a slow stream costs nothing. While nobody watches it does nothing.
type Hub struct {
	db    *store.DB
	logID int32
	log   *slog.Logger

	mu      sync.Mutex
	streams int
	tenants map[uuid.UUID]*tenantState
	tip     Position
	known   bool // tip is that of a look since which somebody has always watched
	looks   uint64
	looked  chan struct{} // closed at the next look
}

type tenantState struct {
	streams int
	changed uint64 // the last look that may have found something
}

// NewHub makes a hub. Start it with Run.
func NewHub(db *store.DB, logID int32, log *slog.Logger) *Hub {
	return &Hub{db: db, logID: logID, log: log, tenants: make(map[uuid.UUID]*tenantState), looked: make(chan struct{})}
}

// Run looks until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		err := h.look(ctx)
		if err != nil && ctx.Err() == nil && !failing {
			h.log.Warn("changes of events not read, trying again", "error", err)
		}
		failing = err != nil
	}
}

// Join counts a stream of a tenant in. It ends with leave.
func (h *Hub) Join(tenantID uuid.UUID) (leave func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	state := h.tenants[tenantID]
	if h.streams >= MaxStreams || state != nil && state.streams >= MaxStreamsOfATenant {
		return nil, ErrTooMany
	}
	if state == nil {
		state = new(tenantState)
		h.tenants[tenantID] = state
	}
	h.streams++
	state.streams++
	return sync.OnceFunc(func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.streams--
		if state.streams--; state.streams == 0 {
			delete(h.tenants, tenantID)
		}
	}), nil
}

// Watcher is a stream's view of the hub. The zero one has seen nothing.
type Watcher struct {
	hub    *Hub
	tenant uuid.UUID
	looks  uint64
}

// Watch begins to watch a tenant, for which the stream has joined. What was committed before is the stream's to read.
func (h *Hub) Watch(tenantID uuid.UUID) *Watcher {
	h.mu.Lock()
	defer h.mu.Unlock()
	return &Watcher{hub: h, tenant: tenantID, looks: h.looks}
}

// Next returns what will be closed at the next look, and whether something may have changed since the last call. If nothing has,
// p is moved on to where the hub has looked: whoever has read up to a position of later than the call before is told nothing by
// what lies between.
func (w *Watcher) Next(p *Position) (looked <-chan struct{}, changed bool) {
	h := w.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	state := h.tenants[w.tenant]
	changed = state == nil || state.changed > w.looks
	if !changed && h.known && h.looks > w.looks && p.next == nil && h.tip.leaf >= p.leaf && h.tip.at.After(p.at) {
		*p = h.tip
	}
	w.looks = h.looks
	return h.looked, changed
}

// look finds out which of the watched tenants something may have changed for.
func (h *Hub) look(ctx context.Context) (err error) {
	h.mu.Lock()
	tenants := slices.Collect(maps.Keys(h.tenants))
	last, known := h.tip, h.known
	if len(tenants) == 0 || !known {
		h.known = false
	}
	h.mu.Unlock()
	if len(tenants) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	tip, err := Tip(ctx, h.db.Queries, h.db.Engine(), h.logID)
	changed := tenants
	if err == nil && known {
		changed, err = h.changed(ctx, tenants, last, tip)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.known = false // the next look tells all, instead of looking far back
		return err
	}
	h.looks++
	h.tip, h.known = tip, true
	for tenantID, state := range h.tenants {
		// One that came while this look was under way was not looked at.
		if slices.Contains(changed, tenantID) || !slices.Contains(tenants, tenantID) {
			state.changed = h.looks
		}
	}
	close(h.looked)
	h.looked = make(chan struct{})
	return nil
}

func (h *Hub) changed(ctx context.Context, tenants []uuid.UUID, last, tip Position) ([]uuid.UUID, error) {
	if tip.leaf == last.leaf && tip.snapshot.Xmax == last.snapshot.Xmax && len(last.snapshot.Running) == 0 {
		return nil, nil // nothing was written in the whole database
	}
	return h.db.ChangedTenants(ctx, h.db.Engine(), store.ChangedTenantsParams{
		TenantIds: tenants, After: floor(last.at.Add(-commitSlack)), Oldest: last.snapshot.oldest(), LogID: h.logID,
		FromIndex: last.leaf, ToIndex: tip.leaf, Since: last.at.Add(-recordSlack),
	})
}
