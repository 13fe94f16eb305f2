package limit

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrate(ctx context.Context, url string) error {
	_, err := store.Migrate(ctx, url)
	return err
}

// rig is a database with a tenant that has a daily quota.
type rig struct {
	t      *testing.T
	db     *store.DB
	proxy  *pgtest.Proxy
	tenant uuid.UUID
}

func newRig(t *testing.T) *rig {
	t.Helper()
	url := pgtest.New(t, migrate)
	r := &rig{t: t, proxy: pgtest.NewProxy(t, url), tenant: uuid.New()}
	r.db = r.open(url)
	if _, err := r.db.Engine().Exec(t.Context(), `insert into tenants (tenant_id, display_name, ingest_per_day) values ($1, '', 10)`, r.tenant); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) open(url string) *store.DB {
	r.t.Helper()
	db, err := store.Open(r.t.Context(), url)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(db.Close)
	return db
}

// node is the limiter of a node.
func (r *rig) node(nodes int) *Limiter {
	r.t.Helper()
	l := New(r.db, slog.New(slog.DiscardHandler))
	l.SetNodes(nodes)
	if err := l.Load(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	return l
}

func (r *rig) write(l *Limiter) {
	r.t.Helper()
	if err := l.Write(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// send has a node take webhooks of ten bytes until it refuses one, and returns how many it took.
func (r *rig) send(l *Limiter, limits route.Limits, webhooks int, outcome Outcome) (taken int) {
	r.t.Helper()
	for range webhooks {
		account, err := l.Take(r.tenant, &limits, 10, time.Now())
		var exceeded *Exceeded
		if errors.As(err, &exceeded) {
			return taken
		}
		if err != nil {
			r.t.Fatal(err)
		}
		account.Settle(outcome, 10)
		taken++
	}
	return taken
}

// stored is what the database has of the tenant.
func (r *rig) stored() (c Counts) {
	r.t.Helper()
	err := r.db.Engine().QueryRow(r.t.Context(), `select coalesce(sum(events), 0), coalesce(sum(duplicates), 0), coalesce(sum(refused), 0),
		coalesce(sum(payload_bytes), 0), coalesce(sum(attempts), 0) from tenant_usage where tenant_id = $1`, r.tenant).
		Scan(&c.Events, &c.Duplicates, &c.Refused, &c.PayloadBytes, &c.Attempts)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func TestDaysQuotaHoldsOverNodesAndStarts(t *testing.T) {
	r := newRig(t)
	limits := route.Limits{PerDay: 10}
	one, other := r.node(2), r.node(2)
	if taken := r.send(one, limits, 6, Stored); taken != 6 {
		t.Fatalf("the first node took %d of 6", taken)
	}
	// What the others took is known once both have written.
	r.send(other, limits, 1, Stored)
	r.write(one)
	r.write(other)
	if taken := r.send(other, limits, 20, Stored); taken != 3 {
		t.Errorf("the second node took %d more, want the 3 that were left", taken)
	}
	r.write(other)
	if taken := r.send(r.node(2), limits, 20, Stored); taken != 0 {
		t.Errorf("a node that starts took %d over the quota", taken)
	}
	if got := r.stored(); got.Events != 10 || got.PayloadBytes != 100 || got.Refused != 1 {
		t.Errorf("stored %+v", got)
	}
}

func TestWhatIsNotStoredGivesItsQuotaBack(t *testing.T) {
	r := newRig(t)
	limits := route.Limits{PerDay: 10, BytesPerDay: 95}
	l := r.node(1)
	if taken := r.send(l, limits, 30, Repeated) + r.send(l, limits, 30, Failed); taken != 60 {
		t.Errorf("%d repeats and failures were taken, want all 60", taken)
	}
	if taken := r.send(l, limits, 30, Stored); taken != 9 {
		t.Errorf("%d were taken, want the 9 that 95 bytes allow", taken)
	}
	r.write(l)
	if got, want := r.stored(), (Counts{Events: 9, Duplicates: 30, Refused: 1, PayloadBytes: 90}); got != want {
		t.Errorf("stored %+v, want %+v", got, want)
	}
}

func TestCountsOutliveADatabaseThatIsAway(t *testing.T) {
	r := newRig(t)
	l := New(r.open(r.proxy.URL), slog.New(slog.DiscardHandler))
	r.send(l, route.Limits{}, 3, Stored)
	r.write(l)
	r.send(l, route.Limits{}, 4, Stored)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Write(ended); err == nil {
		t.Fatal("written without a database")
	}
	if taken := r.send(l, route.Limits{PerDay: 10}, 20, Stored); taken != 3 {
		t.Errorf("%d more were taken while the counts could not be written, want the 3 that were left", taken)
	}
	l.Recorded(r.tenant, 2, 1, 0)
	r.write(l)
	if got := r.stored(); got.Events != 10 || got.Attempts != 2 {
		t.Errorf("stored %+v, want 10 events and 2 attempts", got)
	}
}

func TestQuotaIsFreshAtMidnight(t *testing.T) {
	r := newRig(t)
	l := r.node(1)
	limits := route.Limits{PerDay: 1}
	tonight := time.Unix((int64(Day(time.Now()))+1)*SecondsADay, 0).Add(-time.Minute)
	account, err := l.Take(r.tenant, &limits, 10, tonight)
	if err != nil {
		t.Fatal(err)
	}
	account.Settle(Stored, 10)
	var exceeded *Exceeded
	if _, err := l.Take(r.tenant, &limits, 10, tonight); !errors.As(err, &exceeded) || exceeded.Kind != DayWebhooks || exceeded.Wait != time.Minute {
		t.Fatalf("a minute before midnight: %+v", err)
	}
	if account, err = l.Take(r.tenant, &limits, 10, tonight.Add(exceeded.Wait)); err != nil {
		t.Fatalf("at midnight: %v", err)
	}
	account.Settle(Stored, 10)
	l.mu.RLock()
	deltas := account.collect(nil, 1, tonight.Add(time.Minute))
	l.mu.RUnlock()
	if len(deltas) != 2 || deltas[1].day != deltas[0].day+1 || deltas[0].counts != (Counts{Events: 1, Refused: 1, PayloadBytes: 10}) || deltas[1].counts != (Counts{Events: 1, PayloadBytes: 10}) {
		t.Errorf("to be written: %+v", deltas)
	}
}

// Two nodes, of which each learns of the other by what it writes.
func TestRateIsSharedByDemand(t *testing.T) {
	r := newRig(t)
	one, other := r.node(2), r.node(2)
	limits := route.Limits{PerSecond: 1000, Burst: 1000}
	second := func(atOne, atOther int) {
		r.send(one, route.Limits{}, atOne, Stored)
		r.send(other, route.Limits{}, atOther, Stored)
		r.write(one)
		r.write(other)
	}
	part := func(l *Limiter) float64 { return l.account(r.tenant).share.part }
	if part(one) != 0.5 || part(other) != 0.5 {
		t.Errorf("at first %v and %v, want halves", part(one), part(other))
	}
	for range 3 {
		second(300, 0)
	}
	if part(one) != 1 || part(other) != 0.5 {
		t.Errorf("with all of the demand at one: %v and %v, want 1 and 0.5", part(one), part(other))
	}
	for range 8 {
		second(300, 100)
	}
	if a, b := part(one), part(other); a < 0.7 || a > 0.8 || b < 0.2 || b > 0.3 {
		t.Errorf("with a quarter of the demand at the other: %v and %v", a, b)
	}
	if taken := r.send(other, limits, 1000, Stored); taken < 200 || taken > 400 {
		t.Errorf("the other took %d at once, want about a quarter of the burst", taken)
	}
	one.SetNodes(1)
	second(300, 0)
	if part(one) != 1 {
		t.Errorf("alone: %v", part(one))
	}
}
