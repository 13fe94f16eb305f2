package node

import (
	"log/slog"
	"testing"
)

// A backup reads the tables while a node starts, and tomorrow's partition is to be made.
func TestANodeStartsWhilePartitionsCannotBeMade(t *testing.T) {
	r := newRig(t)
	r.exec(`do $$ begin execute 'drop table events_' || to_char((now() at time zone 'UTC')::date + 7, 'YYYYMMDD'); end $$`)
	unlock := r.lock("events", "access share")
	n := r.start(r.config())
	ready := "select count(*) from generate_series(0, 7) d where to_regclass('events_' || to_char((now() at time zone 'UTC')::date + d, 'YYYYMMDD')) is not null"
	if days := r.count(ready); days != 7 {
		t.Errorf("there are partitions of %d days: this test shows nothing", days)
	}
	unlock()
	again(t, n, "maintenance") // which comes once a minute
	eventually(t, "the partition is made", func() bool { return r.count(ready) == 8 })
}

func TestUsageIsKeptForAsLongAsItIsTold(t *testing.T) {
	r, n := one(t, nil)
	r.exec(`insert into tenant_usage (tenant_id, day) select $1, (now() at time zone 'UTC')::date - age from unnest(array[1, 398, 401]) age`, r.tenant)
	m := &maintenance{db: n.db, keepHeads: defaultKeepHeads, log: slog.New(slog.DiscardHandler)}
	if err := m.tidy(t.Context()); err != nil {
		t.Fatal(err)
	}
	if days := r.count("select count(*) from tenant_usage where day < (now() at time zone 'UTC')::date"); days != 2 {
		t.Errorf("%d days are left, want those of 1 and 398 days ago", days)
	}
}
