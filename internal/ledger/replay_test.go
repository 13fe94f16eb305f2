package ledger

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

// bury makes a destination and dead letters of events to it.
func (r *rig) bury(n int) (destinationID uuid.UUID) {
	r.t.Helper()
	endpointID, destinationID := id.New(), id.New()
	r.exec(`insert into tenants (tenant_id, display_name) values ($1, 'test') on conflict do nothing`, r.tenant)
	r.exec(`insert into endpoints (tenant_id, endpoint_id, display_name, verification, payload_format, max_body_bytes, deduplication, event_type_source)
		values ($1, $2, '', '{}', 'any', 1, '{}', '{}')`, r.tenant, endpointID)
	r.exec(`insert into destinations (tenant_id, destination_id, endpoint_id, display_name, url, filter, signing, retry_policy, headers,
		connect_timeout_ms, timeout_ms, max_in_flight) values ($1, $2, $3, '', 'https://example.com', '{}', '{}', '{}', '[]', 1, 1, 1)`,
		r.tenant, destinationID, endpointID)
	events, deliveries := make([]uuid.UUID, n), make([]uuid.UUID, n)
	for i := range n {
		events[i], deliveries[i] = id.New(), id.New()
	}
	r.exec(`insert into events (tenant_id, event_id, endpoint_id, received_at, body, headers, content_type, event_type, dedup_key, source_address, verification, defect)
		select $1, e, $2, now(), '', '', '', 'push', '', '', 'none', '' from unnest($3::uuid[]) e`, r.tenant, endpointID, events)
	r.exec(`with first as (update logs set next_index = next_index + $6 returning next_index - $6 as leaf)
		insert into dead_letters (tenant_id, dead_letter_id, event_id, endpoint_id, destination_id, reason, attempts, diagnosis, log_id, leaf_index, dead_at)
		select $1, d, e, $2, $3, 1, 1, 'status 500', 1, leaf + place - 1, now()
		from first, rows from (unnest($4::uuid[]), unnest($5::uuid[])) with ordinality as u(d, e, place)`,
		r.tenant, endpointID, destinationID, deliveries, events, n)
	return destinationID
}

func (r *rig) replay(rate int32) store.Replay {
	r.t.Helper()
	var replay store.Replay
	err := r.db.AsTenant(r.t.Context(), r.tenant, func(tx pgx.Tx) (err error) {
		replay, err = StartReplay(r.t.Context(), r.db.Queries, tx, testLogID, r.tenant, new(kapselv1.DeadLetterFilter), rate, false)
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return replay
}

func (r *rig) replayer() *Replayer { return NewReplayer(r.db, slog.New(slog.DiscardHandler)) }

// finish makes steps until the replay has ended.
func (r *rig) finish(replay store.Replay) store.Replay {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 60*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- r.replayer().Run(ctx) }()
	for {
		now, err := r.db.GetReplay(r.t.Context(), r.db.Engine(), r.tenant, replay.ReplayID)
		if err != nil || ctx.Err() != nil {
			r.t.Fatalf("replay is %+v: %v, %v", now, err, ctx.Err())
		}
		if now.State != "running" {
			cancel()
			<-done
			return now
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (r *rig) wantOnce(n int) {
	r.t.Helper()
	rows := r.count("select count(*) from delivery_queue where replay_of is not null")
	distinct := r.count("select count(distinct replay_of) from delivery_queue")
	kept := r.count("select count(*) from redeliveries")
	if rows != n || distinct != n || kept != n {
		r.t.Fatalf("%d deliveries of %d dead letters, %d of them kept; want %d each", rows, distinct, kept, n)
	}
}

func TestReplayThatIsKilledAgainAndAgainRepeatsEachDeadLetterOnce(t *testing.T) {
	r := newSharedRig(t)
	const n, seed = 10_000, 4
	r.bury(n)
	replay := r.replay(10_000)
	if replay.Matched != n {
		t.Fatalf("%d matched, want %d", replay.Matched, n)
	}
	random := rand.New(rand.NewPCG(seed, seed))
	for range 12 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(random.IntN(60))*time.Millisecond)
		r.replayer().Run(ctx)
		cancel()
	}
	if ended := r.finish(replay); ended.Replayed != n || ended.Skipped != 0 || ended.State != "completed" {
		t.Fatalf("seed %d: got %+v", seed, ended)
	}
	r.wantOnce(n)
}

func TestStepThatFailsLeavesNothingBehind(t *testing.T) {
	r := newSharedRig(t)
	r.bury(50)
	replay := r.replay(20)
	r.execAsOwner(`create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$`)
	r.execAsOwner(`create trigger refuse before update on replays for each row when (new.replayed > old.replayed) execute function refuse()`)
	if _, err := r.replayer().step(t.Context()); err != nil {
		t.Fatalf("the failure of one replay is not the replayer's: %v", err)
	}
	r.wantOnce(0)
	after, err := r.db.GetReplay(t.Context(), r.db.Engine(), r.tenant, replay.ReplayID)
	if err != nil || after.Failures != 1 || after.Error == "" || after.Replayed != 0 {
		t.Fatalf("the replay does not show its failure: %+v, %v", after, err)
	}
	r.execAsOwner(`drop trigger refuse on replays`)
	r.exec(`update replays set rate_per_second = 10000, step_at = now()`)
	if ended := r.finish(replay); ended.Replayed != 50 {
		t.Fatalf("got %+v", ended)
	}
	r.wantOnce(50)
}

func TestOverlappingReplaysRepeatEachDeadLetterOnce(t *testing.T) {
	r := newSharedRig(t)
	r.bury(3000)
	first, second := r.replay(10_000), r.replay(10_000)
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { defer close(done); r.replayer().Run(ctx) }()
	a, b := r.finish(first), r.finish(second)
	cancel()
	<-done
	if a.Replayed+b.Replayed != 3000 {
		t.Fatalf("%d and %d replayed, want 3000 together", a.Replayed, b.Replayed)
	}
	r.wantOnce(3000)
	if third := r.replay(1); third.Matched != 0 {
		t.Fatalf("%d matched although all are replayed", third.Matched)
	}
}

func TestReplayPassesOverWhatIsGoneAndWhatCameLater(t *testing.T) {
	r := newSharedRig(t)
	gone := r.bury(5)
	r.bury(7)
	r.exec(`delete from destinations where destination_id = $1`, gone)
	replay := r.replay(10_000)
	r.bury(3)
	if ended := r.finish(replay); ended.Matched != 12 || ended.Replayed != 7 || ended.Skipped != 5 {
		t.Fatalf("got %+v", ended)
	}
	r.wantOnce(7)
}

func TestReplayKeepsItsPace(t *testing.T) {
	r := newSharedRig(t)
	r.bury(40)
	replay := r.replay(20)
	started := time.Now()
	if ended := r.finish(replay); ended.Replayed != 40 {
		t.Fatalf("got %+v", ended)
	}
	if took := time.Since(started); took < 900*time.Millisecond {
		t.Fatalf("40 deliveries at 20 a second took %v", took)
	}
}

func TestReplayThatCannotGoOnHoldsUpNoOther(t *testing.T) {
	r := newSharedRig(t)
	r.bury(20)
	unreadable, refused, fine := r.replay(10_000), r.replay(10_000), r.replay(10_000)
	r.exec(`update replays set filter = '{"fromTheFuture": 1}', step_at = now() - interval '1 h' where replay_id = $1`, unreadable.ReplayID)
	r.exec(`update replays set step_at = now() - interval '1 h' where replay_id = $1`, refused.ReplayID)
	r.execAsOwner(`create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$`)
	r.execAsOwner(`create trigger refuse before update on replays for each row
		when (new.after_index > old.after_index and new.replay_id = '` + refused.ReplayID.String() + `') execute function refuse()`)
	started := time.Now()
	if ended := r.finish(fine); ended.Replayed != 20 {
		t.Fatalf("got %+v", ended)
	}
	if took := time.Since(started); took > 2*time.Second {
		t.Errorf("the replay waited %v behind those that fail", took)
	}
	for replay, want := range map[uuid.UUID]string{unreadable.ReplayID: filterUnreadable, refused.ReplayID: stepFailed} {
		got, err := r.db.GetReplay(t.Context(), r.db.Engine(), r.tenant, replay)
		if err != nil || got.State != "running" || got.Error != want || got.Failures < 1 || !got.StepAt.After(time.Now()) {
			t.Errorf("got %+v, %v, want error %q and a later step", got, err, want)
		}
	}

	// It goes on as soon as it can.
	r.execAsOwner(`drop trigger refuse on replays`)
	r.exec(`update replays set filter = '{}', step_at = now()`)
	for _, replay := range []store.Replay{unreadable, refused} {
		if ended := r.finish(replay); ended.Error != "" || ended.Failures != 0 {
			t.Errorf("got %+v", ended)
		}
	}
	r.wantOnce(20)
}

func TestCountIsOfWhatTheFilterMeets(t *testing.T) {
	r := newSharedRig(t)
	r.bury(30)
	gone := r.bury(12)
	before := int64(r.count("select next_index from logs"))
	for name, c := range map[string]struct {
		filter *kapselv1.DeadLetterFilter
		want   int64
	}{
		"all":         {nil, 42},
		"destination": {&kapselv1.DeadLetterFilter{DestinationIds: []string{id.Destination.Text(gone)}}, 12},
		"event type":  {&kapselv1.DeadLetterFilter{EventTypes: []string{"pu*"}}, 42},
		"no type":     {&kapselv1.DeadLetterFilter{EventTypes: []string{"pull"}}, 0},
		"failure":     {&kapselv1.DeadLetterFilter{Failures: []leafv1.Failure{leafv1.Failure_FAILURE_STATUS}}, 0}, // no leaves here
	} {
		got, err := SelectDeadLetters(r.tenant, c.filter).Count(t.Context(), r.db.Queries, r.db.Engine(), before)
		if err != nil || got != c.want {
			t.Errorf("%s: %d counted (%v), want %d", name, got, err, c.want)
		}
	}
	if got, err := SelectDeadLetters(r.tenant, nil).Count(t.Context(), r.db.Queries, r.db.Engine(), before-12); err != nil || got != 30 {
		t.Errorf("%d counted below the second dozen (%v), want 30", got, err)
	}
}
