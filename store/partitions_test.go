package store_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/store"
)

// days is a database whose owner writes events and attempts of any day into it.
type days struct {
	*testing.T
	owner *pgx.Conn
	db    *store.DB
}

func newDays(t *testing.T) *days {
	t.Helper()
	url := pgtest.New(t, migrate)
	db, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return &days{T: t, owner: connect(t, url), db: db}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func (d *days) exec(sql string, arguments ...any) {
	d.Helper()
	if _, err := d.owner.Exec(d.Context(), sql, arguments...); err != nil {
		d.Fatalf("%s: %v", sql, err)
	}
}

func (d *days) text(sql string, arguments ...any) (text string) {
	d.Helper()
	if err := d.owner.QueryRow(d.Context(), sql, arguments...).Scan(&text); err != nil {
		d.Fatalf("%s: %v", sql, err)
	}
	return text
}

// event makes an event of so many days from now, with a body of so many bytes.
func (d *days) event(ahead, bytes int) {
	d.Helper()
	d.exec(`insert into events (tenant_id, event_id, endpoint_id, received_at, body, headers, content_type, event_type, dedup_key,
			source_address, verification, defect)
		values (gen_random_uuid(), (left(kapsel_uuid_floor(now() + make_interval(days => $1))::text, 19) || right(gen_random_uuid()::text, 17))::uuid,
			gen_random_uuid(), now(), convert_to(repeat('x', $2), 'UTF8'), '', '', '', '', '', 'none', '')`, ahead, bytes)
}

func (d *days) attempt(index, ahead int) {
	d.Helper()
	d.exec(`insert into attempts (log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id, outcome, leaf, diagnosis, response_excerpt)
		values (1, $1, now() + make_interval(days => $2), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, 'leaf', '', '')`, index, ahead)
}

// where says in which partitions the rows of a table are, the oldest first.
func (d *days) where(table string) string {
	d.Helper()
	return d.text(`select coalesce(string_agg(part, ' ' order by part), '') from (select distinct
		case when tableoid::regclass::text like '%_default' then 'default'
			else 'in ' || to_date(right(tableoid::regclass::text, 8), 'YYYYMMDD') - (now() at time zone 'UTC')::date end as part from ` + table + `) t`)
}

// A node whose clock was wrong for a moment, or a time in which no node made partitions, leaves rows of days that have none yet.
func TestPartitionsAreMadeForRowsThatCameBefore(t *testing.T) {
	d := newDays(t)
	d.event(9, 10)
	d.attempt(0, 9)
	d.attempt(1, 9)
	if events, attempts := d.where("events"), d.where("attempts"); events != "default" || attempts != "default" {
		t.Fatalf("events are %s, attempts are %s: this test shows nothing", events, attempts)
	}
	if _, err := d.db.MakePartitions(t.Context(), d.db.Engine(), 10); err != nil {
		t.Fatal(err)
	}
	if events, attempts := d.where("events"), d.where("attempts"); events != "in 9" || attempts != "in 9" {
		t.Errorf("events are %s, attempts are %s: want both in the partition of their day", events, attempts)
	}
	if _, err := d.owner.Exec(t.Context(), "delete from attempts"); err == nil || !strings.Contains(err.Error(), "append-only") {
		t.Errorf("attempts in their partition are not append-only any more: %v", err)
	}
	d.attempt(2, 30)
	if _, err := d.owner.Exec(t.Context(), "delete from attempts_default"); err == nil || !strings.Contains(err.Error(), "append-only") {
		t.Errorf("the default partition is not append-only any more: %v", err)
	}
}

func TestADayWithMuchInTheDefaultPartitionStaysThere(t *testing.T) {
	d := newDays(t)
	d.event(9, 65<<20)
	if _, err := d.db.MakePartitions(t.Context(), d.db.Engine(), 10); err != nil {
		t.Fatal(err)
	}
	if events := d.where("events"); events != "default" {
		t.Errorf("events are %s", events)
	}
	d.event(10, 10)
	if events := d.where("events"); events != "default in 10" {
		t.Errorf("events are %s: want those of the day after in a partition", events)
	}
}

// Who reads for hours, such as pg_dump, keeps a partition from being made; intake must not wait for that.
func TestMakingPartitionsGivesWayToIntake(t *testing.T) {
	d := newDays(t)
	tx, err := d.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "lock table events in access share mode"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := d.db.MakePartitions(ctx, d.db.Engine(), 10); err == nil || !strings.Contains(err.Error(), "lock timeout") {
		t.Errorf("a partition was made of a table that is read: %v", err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if made, err := d.db.MakePartitions(t.Context(), d.db.Engine(), 10); err != nil || made < 6 {
		t.Errorf("made %d partitions, %v: want those of three days at least", made, err)
	}
}
