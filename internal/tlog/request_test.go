package tlog

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A seal is under way, and waits for witnesses. Who asks for another one waits for as long as he wishes.
func TestSealThatIsAskedForIsNotWaitedForLonger(t *testing.T) {
	r := newRig(t)
	sealer := r.sealer("mark", nil)
	r.record(1, 0)
	if err := sealer.lock(r.ctx); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.ctx, 20*time.Millisecond)
	defer cancel()
	if _, err := sealer.SealAll(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline's end", err)
	}
	sealer.unlock()
	if head, err := sealer.SealAll(r.ctx); err != nil || head.Size != 1 {
		t.Errorf("%d, %v", head.Size, err)
	}
}

// listen gives a sealer the requests of other nodes, as a node's listener does.
func (r *rig) listen(s *Sealer) {
	r.t.Helper()
	conn, err := pgx.Connect(r.ctx, r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan struct{})
	r.t.Cleanup(func() { cancel(); <-done; conn.Close(r.ctx) })
	if _, err := conn.Exec(ctx, "listen "+SealChannel); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		defer close(done)
		for {
			notice, err := conn.WaitForNotification(ctx)
			if err != nil {
				return
			}
			s.Requested(notice.Payload)
		}
	}()
}

// patient sealers never find it is time of their own accord.
func patient(c *Config) { c.MaxLeaves, c.MaxAge, c.MinInterval = 1<<40, time.Hour, time.Hour }

func TestAnyNodeCanHaveTheLogSealed(t *testing.T) {
	r := newRig(t)
	leader, other := r.sealer("mark-leader", patient), r.sealer("mark-other", patient)
	r.listen(leader)
	r.run(leader)
	for _, s := range []*Sealer{leader, other, other} {
		for _, n := range []int64{3, 0} { // with nothing new it is the latest head
			r.record(n, 0)
			ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
			head, err := s.SealAll(ctx)
			cancel()
			if err != nil || head.Size%3 != 0 || head.Size == 0 || head.Note == "" {
				t.Fatalf("got %+v, %v", head, err)
			}
			if latest, err := r.reader.Head(r.ctx); err != nil || latest != head {
				t.Fatalf("answered head %d, latest %d, %v", head.Size, latest.Size, err)
			}
		}
	}
	r.wantHead(9)
	other.Requested("2")
	other.Requested("x")
	if other.requested.Load() {
		t.Error("a request for another log was taken")
	}
}

func TestSealOfADeadLeaderIsWaitedForAndThenMade(t *testing.T) {
	r := newRig(t)
	dead, other := r.sealer("mark-dead", patient), r.sealer("mark-other", patient)
	r.flush(dead) // and never renews its lease
	r.record(5, 0)
	short, cancel := context.WithTimeout(r.ctx, 300*time.Millisecond)
	defer cancel()
	if _, err := other.SealAll(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("while the dead leader's lease lasts: got %v", err)
	}
	r.tamper("update log_sealers set lease_expires_at = now() - interval '1 second'")
	if head, err := other.SealAll(r.ctx); err != nil || head.Size != 5 {
		t.Fatalf("got %d, %v", head.Size, err)
	}
}

// Heads of 80 days, one every 20 minutes: the policy keeps the last two days whole, then hours, then days.
func TestHistoryOfHeadsIsThinned(t *testing.T) {
	r := newRig(t)
	r.flush(r.sealer("mark", nil)) // size 0, now
	r.tamper(`insert into tree_heads (log_id, tree_size, root_hash, signed_at, note)
		select 1, n, sha256(n::text::bytea), date_trunc('day', now(), 'UTC') - interval '80 days' + n * interval '20 minutes', 'note'
		from generate_series(1, 80 * 72) n`)
	// An early head of an hour that is to be thinned has a witness's line: it is kept instead of the hour's last.
	var cosigned int64
	err := r.pool.QueryRow(r.ctx, `insert into cosignatures (log_id, tree_size, key_name, line)
		select 1, min(tree_size), 'witness', 'line' from tree_heads where signed_at = date_trunc('day', now(), 'UTC') - interval '10 days'
		returning tree_size`).Scan(&cosigned)
	if err != nil {
		t.Fatal(err)
	}
	thin := func() (removed int32) {
		t.Helper()
		for {
			var n int32
			if err := r.pool.QueryRow(r.ctx, "select kapsel_thin_tree_heads(1, '48 hours', '30 days', 1000)").Scan(&n); err != nil || n > 1000 {
				t.Fatalf("removed %d, %v", n, err)
			}
			if removed += n; n < 1000 {
				return removed
			}
		}
	}
	if removed := thin(); removed < 3000 {
		t.Errorf("removed only %d heads", removed)
	}
	if again := thin(); again != 0 {
		t.Errorf("a second run removed %d more", again)
	}
	count := func(where string) (n int64) {
		t.Helper()
		if err := r.pool.QueryRow(r.ctx, "select count(*) from tree_heads where "+where).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, check := range []struct {
		what, where string
		want        int64
	}{
		{"all of a young day", "signed_at >= date_trunc('day', now(), 'UTC') - interval '1 day' and signed_at < date_trunc('day', now(), 'UTC')", 72},
		{"one an hour", "signed_at >= date_trunc('day', now(), 'UTC') - interval '20 days' and signed_at < date_trunc('day', now(), 'UTC') - interval '19 days'", 24},
		{"one a day", "signed_at >= date_trunc('day', now(), 'UTC') - interval '60 days' and signed_at < date_trunc('day', now(), 'UTC') - interval '50 days'", 10},
		{"the first", "tree_size = 0", 1},
		{"the latest", "tree_size = 80 * 72", 1},
	} {
		if got := count(check.where); got != check.want {
			t.Errorf("%s: %d heads are kept, want %d", check.what, got, check.want)
		}
	}
	if _, err := r.reader.HeadAt(r.ctx, cosigned); err != nil {
		t.Errorf("the cosigned head: %v", err)
	}
	if _, err := r.pool.Exec(r.ctx, "delete from tree_heads"); err == nil {
		t.Error("the engine may delete heads past the policy")
	}
	// Nothing young goes, whatever the policy says.
	if _, err := r.pool.Exec(r.ctx, "select kapsel_thin_tree_heads(1, '0', '0', 1000000)"); err != nil {
		t.Fatal(err)
	}
	if got := count("signed_at > now() - interval '59 minutes'"); got == 0 {
		t.Error("heads of this hour are gone")
	}
}

// A log that nobody used for a year keeps its latest head.
func TestLatestHeadIsNeverThinned(t *testing.T) {
	r := sealed(t, 5, 9)
	r.tamper("update tree_heads set signed_at = now() - interval '1 year' + tree_size * interval '1 second'")
	var removed int
	if err := r.pool.QueryRow(r.ctx, "select kapsel_thin_tree_heads(1, '48 hours', '30 days', 1000)").Scan(&removed); err != nil {
		t.Fatal(err)
	}
	if head, err := r.reader.Head(r.ctx); err != nil || head.Size != 9 {
		t.Errorf("latest head: %d, %v", head.Size, err)
	}
	r.record(1, 0)
	r.tamper("update log_sealers set lease_owner = null")
	r.flush(r.sealer("mark", nil))
	r.wantHead(10)
}
