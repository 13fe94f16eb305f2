package retention

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/fsck"
	"github.com/kapsel-dev/kapsel/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrate(ctx context.Context, url string) error {
	_, err := store.Migrate(ctx, url)
	return err
}

// rig is a database with partitions of the last 120 days and one log.
type rig struct {
	*testing.T
	owner *pgxpool.Pool
	db    *store.DB
	now   time.Time
}

func newRig(t *testing.T) *rig {
	t.Helper()
	url := pgtest.New(t, migrate)
	owner, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(owner.Close)
	db, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	r := &rig{T: t, owner: owner, db: db}
	r.scan(&r.now, `select now()`)
	r.exec(`select kapsel_make_partitions((now() at time zone 'UTC')::date - 120, (now() at time zone 'UTC')::date)`)
	r.exec(`insert into logs (log_id, origin) values (1, 'log.example.com/1')`)
	r.exec(`insert into log_sealers (log_id, root_hash) values (1, '')`)
	return r
}

func (r *rig) exec(sql string, arguments ...any) {
	r.Helper()
	if _, err := r.owner.Exec(r.Context(), sql, arguments...); err != nil {
		r.Fatalf("%s: %v", sql, err)
	}
}

func (r *rig) scan(target any, sql string, arguments ...any) {
	r.Helper()
	if err := r.owner.QueryRow(r.Context(), sql, arguments...).Scan(target); err != nil {
		r.Fatalf("%s: %v", sql, err)
	}
}

// tenant makes one that keeps payloads for some days, 0 for as long as the server says.
func (r *rig) tenant(days int) uuid.UUID {
	r.Helper()
	tenant := uuid.New()
	r.exec(`insert into tenants (tenant_id, display_name, payload_retention_seconds) values ($1, '', nullif($2, 0) * 86400)`, tenant, days)
	return tenant
}

// event makes an event that is some days old, and a redelivery of it.
func (r *rig) event(tenant uuid.UUID, age int) {
	r.Helper()
	r.exec(`with made as (
		insert into events (tenant_id, event_id, endpoint_id, received_at, body, headers, content_type, event_type, dedup_key,
			source_address, verification, defect)
		select $1, (left(kapsel_uuid_floor(now() - make_interval(days => $2))::text, 19) || right(gen_random_uuid()::text, 17))::uuid,
			gen_random_uuid(), now() - make_interval(days => $2), convert_to('body of day ' || $2, 'UTF8'), '', '', '', '', '', 'none', ''
		returning event_id)
		insert into redeliveries (tenant_id, delivery_id, event_id) select $1, gen_random_uuid(), event_id from made`, tenant, age)
}

// ages are those of the events that a tenant still has, the youngest first.
func (r *rig) ages(tenant uuid.UUID) []int {
	r.Helper()
	rows, err := r.owner.Query(r.Context(), `select extract(day from $2 - received_at)::int from events
		where tenant_id = $1 and body = convert_to('body of day ' || extract(day from $2 - received_at)::int, 'UTF8') order by 1`, tenant, r.now.Add(time.Minute))
	if err != nil {
		r.Fatal(err)
	}
	defer rows.Close()
	ages := []int{}
	for rows.Next() {
		var age int
		if err := rows.Scan(&age); err != nil {
			r.Fatal(err)
		}
		ages = append(ages, age)
	}
	if rows.Err() != nil {
		r.Fatal(rows.Err())
	}
	return ages
}

func (r *rig) expect(who string, tenant uuid.UUID, want ...int) {
	r.Helper()
	if got := r.ages(tenant); !slices.Equal(got, want) {
		r.Errorf("%s has events that are %v days old, want %v", who, got, want)
	}
	var redelivered int
	if r.scan(&redelivered, `select count(*) from redeliveries where tenant_id = $1`, tenant); redelivered != len(want) {
		r.Errorf("%s has %d redeliveries, want those of its %d events", who, redelivered, len(want))
	}
}

func (r *rig) partition(parent string, age int) bool {
	r.Helper()
	var there bool
	r.scan(&there, `select to_regclass($1) is not null`, parent+"_"+r.now.UTC().AddDate(0, 0, -age).Format("20060102"))
	return there
}

func (r *rig) keeper() *Keeper {
	return New(r.db, DefaultPayloads, 90*day, slog.New(slog.DiscardHandler))
}

func (r *rig) enforce() {
	r.Helper()
	if err := r.keeper().Enforce(r.Context(), r.now); err != nil {
		r.Fatal(err)
	}
}

func TestEachTenantKeepsItsPayloadsForItsOwnTime(t *testing.T) {
	r := newRig(t)
	usual, long, short := r.tenant(0), r.tenant(60), r.tenant(3)
	for _, age := range []int{0, 1, 5, 29, 32, 45, 70} {
		for _, tenant := range []uuid.UUID{usual, long, short} {
			r.event(tenant, age)
		}
	}
	for range 2 { // the second time there is nothing to do
		r.enforce()
		r.expect("a tenant of the usual retention", usual, 0, 1, 5, 29)
		r.expect("one of 60 days", long, 0, 1, 5, 29, 32, 45)
		r.expect("one of 3 days", short, 0, 1)
	}
	if r.partition("events", 70) || !r.partition("events", 45) || !r.partition("events", 29) {
		t.Error("the partitions that are left are not those of days that somebody keeps")
	}

	// Retention that becomes longer brings nothing back and keeps what is there; one that becomes shorter lets go.
	r.exec(`update tenants set payload_retention_seconds = 100 * 86400 where tenant_id = $1`, short)
	r.exec(`update tenants set payload_retention_seconds = null where tenant_id = $1`, long)
	r.enforce()
	r.expect("the usual one", usual, 0, 1, 5, 29)
	r.expect("one that went back to the usual retention", long, 0, 1, 5, 29)
	r.expect("one that went to 100 days", short, 0, 1)
	if r.partition("events", 45) {
		t.Error("a day that nobody keeps any more still has its partition")
	}
	var from time.Time
	if r.scan(&from, `select kapsel_events_from($1)`, short); !from.After(r.now.AddDate(0, 0, -5)) {
		t.Errorf("events may be missing before %v: want three days ago, a horizon never goes back", from)
	}
}

// Days without a partition, since no node that makes them was running then.
func TestEventsInTheDefaultPartitionGoToo(t *testing.T) {
	r := newRig(t)
	usual, long := r.tenant(0), r.tenant(500)
	for _, age := range []int{0, 200, 300} {
		r.event(usual, age)
		r.event(long, age)
	}
	var early int
	if r.scan(&early, `select count(*) from events_default`); early != 4 {
		t.Fatalf("%d events are in the default partition, want 4: this test shows nothing", early)
	}
	waiting := r.tenant(0) // its events are of a node whose clock is behind, and not delivered yet
	r.event(waiting, 250)
	r.exec(`insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at)
		select tenant_id, (left(event_id::text, 19) || right(gen_random_uuid()::text, 17))::uuid, event_id, endpoint_id, gen_random_uuid(), now() from events where tenant_id = $1`, waiting)
	// After the event's, as they are made.
	r.exec(`update delivery_queue set delivery_id = event_id where tenant_id = $1 and delivery_id < event_id`, waiting)
	r.enforce()
	r.expect("a tenant of the usual retention", usual, 0)
	r.expect("one of 500 days", long, 0, 200, 300)
	if ages := r.ages(waiting); !slices.Equal(ages, []int{250}) {
		t.Errorf("the event that waits is %v days old: it is gone", ages)
	}
	r.exec(`delete from delivery_queue where tenant_id = $1`, waiting)
	r.enforce()
	r.expect("what waited", waiting)
}

func TestFsckTellsRetentionFromDamage(t *testing.T) {
	r := newRig(t)
	short := r.tenant(3)
	other := r.tenant(0)
	for _, tenant := range []uuid.UUID{short, other} {
		r.event(tenant, 10)
		r.exec(`insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at)
			select tenant_id, gen_random_uuid(), event_id, endpoint_id, gen_random_uuid(), now() from events where tenant_id = $1`, tenant)
	}
	r.enforce()
	if r.ages(short) == nil || len(r.ages(short)) != 0 {
		t.Fatal("the event is still there")
	}
	if found := r.fsck("queue rows"); len(found) != 0 {
		t.Errorf("what retention removed is called damage: %v", found)
	}
	r.exec(`delete from events where tenant_id = $1`, other)
	if found := r.fsck("queue rows"); len(found) != 1 {
		t.Errorf("an event was removed by hand, fsck finds %v", found)
	}
}

// fsck returns the violations of the check with these words in its name.
func (r *rig) fsck(name string) []fsck.Violation {
	r.Helper()
	tx, err := r.owner.Begin(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	defer tx.Rollback(r.Context())
	report, err := fsck.In(r.Context(), tx, fsck.Config{LogID: 1})
	if err != nil {
		r.Fatal(err)
	}
	for _, check := range report.Checks {
		if strings.Contains(check.Name, name) {
			return check.Shown
		}
	}
	r.Fatalf("no check %q", name)
	return nil
}

// A server that starts with a clock of next year would have every payload dropped within the hour.
func TestNothingIsDroppedByAWrongClock(t *testing.T) {
	r := newRig(t)
	tenant := r.tenant(0)
	r.event(tenant, 40)
	k := r.keeper()
	for _, off := range []time.Duration{-40 * day, 40 * day} {
		k.clock = func() time.Time { return time.Now().Add(off) }
		if err := k.EnforceNow(t.Context()); err == nil || !strings.Contains(err.Error(), "clock") {
			t.Errorf("with the node's clock off by %v: %v", off, err)
		}
		r.expect("the tenant", tenant, 40)
	}
	k.clock = time.Now
	if err := k.EnforceNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.expect("the tenant", tenant)
}

func TestADayIsNotDroppedAgainstALockThatIntakeWaitsFor(t *testing.T) {
	r := newRig(t)
	tenant := r.tenant(0)
	r.event(tenant, 40)
	tx, err := r.owner.Begin(t.Context()) // a statement of intake that takes its time
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), `lock table events in row exclusive mode`); err != nil {
		t.Fatal(err)
	}
	err = r.keeper().Enforce(t.Context(), r.now)
	if err == nil || !strings.Contains(err.Error(), "lock timeout") {
		t.Fatalf("enforced beside a running statement: %v, want a lock timeout", err)
	}
	r.event(tenant, 0) // others are not held up by what it tried
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.enforce()
	r.expect("the tenant", tenant, 0)
}

// attempt writes a row of the ledger that is some days old.
func (r *rig) attempt(tenant uuid.UUID, index, age int) {
	r.Helper()
	r.exec(`insert into attempts (log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id, outcome, leaf, diagnosis, response_excerpt)
		values (1, $2, now() - make_interval(days => $3), $1, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, 'leaf', '', '')`, tenant, index, age)
	r.exec(`update logs set next_index = greatest(next_index, $1 + 1)`, index)
	r.exec(`insert into dead_letters (tenant_id, dead_letter_id, event_id, endpoint_id, reason, attempts, diagnosis, log_id, leaf_index, dead_at)
		values ($1, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, 1, '', 1, $2, now() - make_interval(days => $3))`, tenant, index, age)
	r.exec(`insert into cancellations (tenant_id, delivery_id, event_id, destination_id, attempts, reason, cancelled_at)
		values ($1, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, '', now() - make_interval(days => $2))`, tenant, age)
}

func TestLedgerGoesByWholeSealedDays(t *testing.T) {
	r := newRig(t)
	tenant := r.tenant(0)
	for index, age := range []int{110, 100, 93, 80, 1} {
		r.attempt(tenant, index, age)
	}
	r.exec(`update log_sealers set tree_size = 2`) // the leaf of day 93 is not sealed
	err := r.keeper().Enforce(t.Context(), r.now)
	if err == nil || !strings.Contains(err.Error(), "not sealed") {
		t.Fatalf("dropped a day that is not sealed: %v", err)
	}
	if r.partition("attempts", 100) || !r.partition("attempts", 93) {
		t.Error("want the days before the unsealed one to be gone, and it and later ones to stay")
	}
	r.exec(`update log_sealers set tree_size = 5`)
	for range 2 {
		r.enforce()
		for table, want := range map[string]int{"attempts": 2, "dead_letters": 2, "cancellations": 2} {
			var rows int
			if r.scan(&rows, fmt.Sprintf(`select count(*) from %s`, table)); rows != want {
				t.Errorf("%s has %d rows, want %d", table, rows, want)
			}
		}
	}
	if found := r.fsck("dense"); len(found) != 0 {
		t.Errorf("what retention removed is called damage: %v", found)
	}
	r.exec(`alter table attempts disable trigger all`)
	r.exec(`delete from attempts where leaf_index = 3`)
	if found := r.fsck("dense"); len(found) == 0 {
		t.Error("the first leaf that is kept was removed by hand, and fsck does not see it")
	}
}

// Until its day leaves the ledger, nobody removes an entry.
func TestAuditLogIsKeptForAsLongAsTheLedger(t *testing.T) {
	r := newRig(t)
	tenant := r.tenant(0)
	for _, age := range []int{100, 62, 58, 1, 0} {
		r.exec(`insert into audit_entries (tenant_id, entry_id, created_at, actor, action, resource_id, detail, source_address)
			values ($1, (left(kapsel_uuid_floor(now() - make_interval(days => $2))::text, 19) || right(gen_random_uuid()::text, 17))::uuid,
				now() - make_interval(days => $2), 'system', 'Test', '', $2::text, '')`, tenant, age)
	}
	left := func() (details string) {
		r.scan(&details, `select string_agg(detail, ' ' order by created_at) from audit_entries`)
		return details
	}
	for _, statement := range []string{`delete from audit_entries`, `delete from audit_entries where detail = '100'`} {
		if _, err := r.owner.Exec(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", statement, err)
		}
	}
	keeper := New(r.db, DefaultPayloads, 200*day, slog.New(slog.DiscardHandler))
	if err := keeper.Enforce(t.Context(), r.now); err != nil {
		t.Fatal(err)
	}
	if got := left(); got != "100 62 58 1 0" {
		t.Errorf("with a ledger of 200 days: %s", got)
	}
	keeper = New(r.db, DefaultPayloads, 60*day, slog.New(slog.DiscardHandler))
	if err := keeper.Enforce(t.Context(), r.now); err != nil {
		t.Fatal(err)
	}
	if got := left(); got != "58 1 0" {
		t.Errorf("with a ledger of 60 days: %s", got)
	}
}
