package node

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kapsel-dev/kapsel/internal/telemetry"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// probeInterval is how old a figure of the database can be. Each probe is a few small statements, each by an index.
	probeInterval = 2 * time.Second
	probeTimeout  = 2 * time.Second
	// leafSlack is how much earlier than the last head a leaf after it may have been recorded (tlog's recordingSlack).
	leafSlack = 24 * time.Hour
)

// probe reads now and then what only the database knows, so that no scrape waits for it.
type probe struct {
	db    *store.DB
	log   *slog.Logger
	nodes atomic.Int64 // alive, as membership says

	mu     sync.Mutex
	latest figures

	seals  *telemetry.Timer
	sealed *telemetry.Count
}

// figures of the database, NaN while they are not known.
type figures struct {
	up                               float64
	queued, oldestDue                float64
	recorded, sealed, oldestUnsealed float64
	partitionDays                    float64
}

var unknown = figures{queued: math.NaN(), oldestDue: math.NaN(), recorded: math.NaN(), sealed: math.NaN(), oldestUnsealed: math.NaN(), partitionDays: math.NaN()}

func newProbe(db *store.DB, m *telemetry.Meter, log *slog.Logger) *probe {
	p := &probe{db: db, log: log, latest: unknown}
	p.seals = m.FastHistogram("kapsel.sealer.seal.duration", "How long seals took, from reading the leaves to the published head.").With()
	p.sealed = m.Counter("kapsel.sealer.sealed_leaves", "Leaves that this node has sealed.").With()
	show := func(name, unit, help string, read func(figures) float64) {
		m.Gauge(name, unit, help, func(observe telemetry.Observe) {
			p.mu.Lock()
			value := read(p.latest)
			p.mu.Unlock()
			if !math.IsNaN(value) {
				observe(value)
			}
		})
	}
	show("kapsel.database.up", "", "Whether the database answered the last probe: 1 or 0.", func(f figures) float64 { return f.up })
	show("kapsel.queue.estimated_deliveries", "", "Deliveries in the queue, those that are held too, by PostgreSQL's estimate.", func(f figures) float64 { return f.queued })
	show("kapsel.queue.oldest_due", "s", "For how long the oldest delivery that is due waits to be claimed.", func(f figures) float64 { return f.oldestDue })
	show("kapsel.log.recorded_leaves", "", "Leaves of the log.", func(f figures) float64 { return f.recorded })
	show("kapsel.log.tree_size", "", "Leaves that the published head covers.", func(f figures) float64 { return f.sealed })
	show("kapsel.log.oldest_unsealed_leaf", "s", "Age of the oldest leaf that no head covers; 0 when there is none.", func(f figures) float64 { return f.oldestUnsealed })
	show("kapsel.partitions.ready", "", "Days from today on that have their partitions, of 8 that are looked at.", func(f figures) float64 { return f.partitionDays })
	m.Gauge("kapsel.nodes.alive", "", "Nodes whose heartbeat is fresh, this one included.", func(observe telemetry.Observe) { observe(float64(p.nodes.Load())) })
	p.showPools(m)
	return p
}

func (p *probe) showPools(m *telemetry.Meter) {
	m.Gauge("kapsel.pool.connections", "", "Connections to the database, by pool and state.", func(observe telemetry.Observe) {
		for name, stat := range p.db.Pools() {
			observe(float64(stat.AcquiredConns()), "pool", name, "state", "acquired")
			observe(float64(stat.IdleConns()), "pool", name, "state", "idle")
		}
	})
	m.Gauge("kapsel.pool.max_connections", "", "What a pool may have.", func(observe telemetry.Observe) {
		for name, stat := range p.db.Pools() {
			observe(float64(stat.MaxConns()), "pool", name)
		}
	})
	m.Sum("kapsel.pool.acquire_wait", "s", "How long all who wanted a connection have waited for it.", func(observe telemetry.Observe) {
		for name, stat := range p.db.Pools() {
			observe(stat.EmptyAcquireWaitTime().Seconds(), "pool", name)
		}
	})
	m.Sum("kapsel.database.statements", "", "Statements sent to the database.", func(observe telemetry.Observe) { observe(float64(p.db.RoundTrips())) })
}

// onSeal counts a seal and tells next, if there is one.
func (p *probe) onSeal(next func(tlog.SealStats)) func(tlog.SealStats) {
	return func(stats tlog.SealStats) {
		p.seals.Record(stats.Took)
		p.sealed.Add(int(stats.Leaves))
		if next != nil {
			next(stats)
		}
	}
}

// Run looks until ctx ends.
func (p *probe) Run(ctx context.Context, heads *tlog.Heads) error {
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	for {
		f, err := p.look(ctx, heads)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			p.log.Debug("probe failed", "error", err) // whoever needs the database says so louder
			f = unknown
		}
		p.mu.Lock()
		p.latest = f
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (p *probe) look(ctx context.Context, heads *tlog.Heads) (f figures, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	queue, err := p.db.ProbeQueue(ctx, p.db.Engine())
	if err != nil {
		return f, err
	}
	days, err := p.db.ProbePartitions(ctx, p.db.Engine())
	if err != nil {
		return f, err
	}
	var since time.Time
	if head, known := heads.Latest(); known {
		since = head.SignedAt.Add(-leafSlack)
	}
	log, err := p.db.UnsealedLeaves(ctx, p.db.Engine(), since, logID)
	if err != nil {
		return f, err
	}
	return figures{
		up: 1, queued: float64(queue.EstimatedDeliveries), oldestDue: queue.OldestDueSeconds,
		recorded: float64(log.NextIndex), sealed: float64(log.TreeSize), oldestUnsealed: log.OldestSeconds,
		partitionDays: float64(days),
	}, nil
}
