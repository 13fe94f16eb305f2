package route

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/store"
)

// pollInterval bounds how long a change can stay unseen when its notice is lost.
const pollInterval = 5 * time.Second

// Table holds the current snapshot and keeps it current.
type Table struct {
	db      *store.DB
	keys    *secret.Keyring
	log     *slog.Logger
	poke    chan struct{}
	reading sync.Mutex
	told    string // the problems that were logged last, so that each read does not log them again
	current atomic.Pointer[Snapshot]
}

// NewTable makes an empty table. Refresh or Run fills it.
func NewTable(db *store.DB, keys *secret.Keyring, log *slog.Logger) *Table {
	t := &Table{db: db, keys: keys, log: log, poke: make(chan struct{}, 1)}
	t.current.Store(&Snapshot{})
	return t
}

// Snapshot is the configuration as it was read last.
func (t *Table) Snapshot() *Snapshot { return t.current.Load() }

// Poke asks Run to read again soon. It never blocks.
func (t *Table) Poke() {
	select {
	case t.poke <- struct{}{}:
	default:
	}
}

// Refresh reads the configuration now. When it returns without error, the snapshot is not older than the call.
func (t *Table) Refresh(ctx context.Context) error {
	t.reading.Lock()
	defer t.reading.Unlock()
	snapshot, problems, err := load(ctx, t.db, t.keys, t.Snapshot())
	if err != nil {
		return err
	}
	if joined := errors.Join(problems...); joined == nil {
		t.told = ""
	} else if t.told != joined.Error() {
		t.told = joined.Error()
		for _, problem := range problems {
			t.log.Error("configuration cannot be used, its traffic is held", "error", problem)
		}
	}
	t.current.Store(snapshot)
	return nil
}

// Run refreshes the snapshot on each Poke, and every few seconds, until ctx ends. While the database is away the last
// snapshot stays in force.
func (t *Table) Run(ctx context.Context) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		case <-t.poke:
		}
		fault.Pass(fault.RoutesRead)
		if err := t.Refresh(ctx); err != nil && ctx.Err() == nil {
			t.log.Warn("routes not refreshed, the last ones stay in force", "error", err)
		}
	}
}
