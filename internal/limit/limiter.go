package limit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// writeInterval is how old another node's use can be, and so what a day's quota can be exceeded by; and what a node that
	// is killed has counted in vain.
	writeInterval = time.Second
	// maxRows of one statement: some 20 ms of the database's time.
	maxRows      = 1000
	writeTimeout = 5 * time.Second
)

// Limiter holds tenants to their limits and counts what they use. Make it with New. Safe for concurrent use.
type Limiter struct {
	db      *store.DB
	log     *slog.Logger
	started time.Time
	nodes   atomic.Int64
	writing sync.Mutex // a statement at a time
	refused [DayBytes + 1]*telemetry.Count

	mu       sync.RWMutex
	accounts map[uuid.UUID]*Account // one a tenant that has sent or got something since the start
}

// New makes a limiter that knows nothing of what was used before; see Load.
func New(db *store.DB, log *slog.Logger) *Limiter {
	l := &Limiter{db: db, log: log, started: time.Now(), accounts: make(map[uuid.UUID]*Account)}
	l.nodes.Store(1)
	return l
}

// SetMeter says who shows what is refused. It belongs before the first Take.
func (l *Limiter) SetMeter(m *telemetry.Meter) {
	refusals := m.Counter("kapsel.limit.refusals", "Webhooks refused because their tenant is over a limit, by the limit.")
	for kind, name := range [...]string{Rate: "per_second", DayWebhooks: "webhooks_per_day", DayBytes: "bytes_per_day"} {
		l.refused[kind] = refusals.With("limit", name)
	}
}

// SetNodes says how many nodes are alive: rates are shared with them.
func (l *Limiter) SetNodes(n int) { l.nodes.Store(int64(max(1, n))) }

// Load reads what tenants with a daily quota have used today, so that a node that starts does not begin at zero.
func (l *Limiter) Load(ctx context.Context) error {
	today := Day(time.Now())
	rows, err := l.db.UsageOfDay(ctx, l.db.Engine(), today)
	if err != nil {
		return fmt.Errorf("read today's usage: %w", err)
	}
	for _, row := range rows {
		a := l.account(row.TenantID)
		a.mu.Lock()
		a.turn(today)
		a.written = Counts{Events: row.Events, Duplicates: row.Duplicates, Refused: row.Refused, PayloadBytes: row.PayloadBytes}
		a.mu.Unlock()
	}
	return nil
}

// Take spends what a webhook of so many bytes costs its tenant. Its outcome is then owed to the account: see
// Account.Settle. The error is an *Exceeded.
func (l *Limiter) Take(tenantID uuid.UUID, limits *route.Limits, bytes int, at time.Time) (*Account, error) {
	a := l.account(tenantID)
	if exceeded := a.take(limits, int64(bytes), at); exceeded != nil {
		l.refused[exceeded.Kind].Add(1)
		return nil, exceeded
	}
	return a, nil
}

// Recorded counts results of deliveries.
func (l *Limiter) Recorded(tenantID uuid.UUID, attempts, delivered, deadLettered int64) {
	l.account(tenantID).recorded(Counts{Attempts: attempts, Delivered: delivered, DeadLettered: deadLettered}, time.Now())
}

func (l *Limiter) account(tenantID uuid.UUID) *Account {
	l.mu.RLock()
	a := l.accounts[tenantID]
	l.mu.RUnlock()
	if a != nil {
		return a
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if a = l.accounts[tenantID]; a == nil {
		a = &Account{limiter: l, tenantID: tenantID, share: share{part: 1 / float64(l.nodes.Load()), seen: unseen}}
		l.accounts[tenantID] = a
	}
	return a
}

// Run writes once a second what was counted, until ctx ends.
func (l *Limiter) Run(ctx context.Context) error {
	ticker := time.NewTicker(writeInterval)
	defer ticker.Stop()
	warned := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		fault.Pass(fault.UsageWrite)
		err := l.Write(ctx)
		if err != nil && !warned && ctx.Err() == nil {
			l.log.Warn("usage not written, trying again each second", "error", err)
		}
		warned = err != nil
	}
}

// Write writes what was counted, and learns what the other nodes have.
func (l *Limiter) Write(ctx context.Context) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	now, nodes := time.Now(), int(l.nodes.Load())
	var deltas []delta
	l.mu.RLock()
	for _, a := range l.accounts {
		deltas = a.collect(deltas, nodes, now)
	}
	l.mu.RUnlock()
	slices.SortFunc(deltas, func(a, b delta) int {
		if order := bytes.Compare(a.account.tenantID[:], b.account.tenantID[:]); order != 0 {
			return order
		}
		return int(a.day - b.day)
	})
	var errs []error
	for part := range slices.Chunk(deltas, maxRows) {
		if err := l.write(ctx, part, nodes); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (l *Limiter) write(ctx context.Context, deltas []delta, nodes int) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var p store.AddUsageParams
	for _, d := range deltas {
		p.TenantIds, p.DayNumbers = append(p.TenantIds, d.account.tenantID), append(p.DayNumbers, d.day)
		p.Events, p.Duplicates = append(p.Events, d.counts.Events), append(p.Duplicates, d.counts.Duplicates)
		p.Refused, p.PayloadBytes = append(p.Refused, d.counts.Refused), append(p.PayloadBytes, d.counts.PayloadBytes)
		p.Attempts, p.Delivered = append(p.Attempts, d.counts.Attempts), append(p.Delivered, d.counts.Delivered)
		p.DeadLettered = append(p.DeadLettered, d.counts.DeadLettered)
	}
	rows, lost, err := l.add(ctx, p)
	if err != nil {
		for _, d := range deltas {
			d.account.unwrite(d, lost)
		}
		return fmt.Errorf("write usage of %d tenants: %w", len(deltas), err)
	}
	type key struct {
		tenant uuid.UUID
		day    int32
	}
	totals := make(map[key]Counts, len(rows))
	for _, row := range rows {
		totals[key{row.TenantID, row.DayNumber}] = Counts{Events: row.Events, Duplicates: row.Duplicates, Refused: row.Refused, PayloadBytes: row.PayloadBytes}
	}
	for _, d := range deltas {
		d.account.wrote(d, totals[key{d.account.tenantID, d.day}], nodes)
	}
	return nil
}

// add runs the statement. With an error, lost says that it may have been committed, its answer lost: writing it again could
// count twice, so a second's counts are dropped instead.
func (l *Limiter) add(ctx context.Context, p store.AddUsageParams) (rows []store.AddUsageRow, lost bool, err error) {
	conn, err := l.db.Engine().Acquire(ctx)
	if err != nil {
		return nil, false, err
	}
	defer conn.Release()
	rows, err = l.db.AddUsage(ctx, conn, p)
	var refused *pgconn.PgError
	return rows, err != nil && !errors.As(err, &refused) && !pgconn.SafeToRetry(err), err
}
