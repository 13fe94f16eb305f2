package ledger

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
)

func (r *rig) eraser() *Eraser {
	return NewEraser(r.db, id.New(), testLogID, slog.New(slog.DiscardHandler), func(int) {})
}

// seal says that all leaves are sealed, as the sealer's row does.
func (r *rig) seal() {
	r.t.Helper()
	r.exec("insert into log_sealers (log_id, root_hash, tree_size) select log_id, '', next_index from logs on conflict (log_id) do update set tree_size = excluded.tree_size")
}

// stored is a duty whose event is in the database.
func (r *rig) stored(owner uuid.UUID, attempts int) Duty {
	r.t.Helper()
	d := r.duty(owner, attempts)
	r.exec(`insert into events (tenant_id, event_id, endpoint_id, received_at, body, headers, content_type, event_type, dedup_key, source_address, verification, defect)
		values ($1, $2, $3, now(), '{}', 'A: b', 'c', '', 'k:1', '::1', 'none', '')`, r.tenant, d.Event.ID, d.Event.EndpointID)
	return d
}

func TestErasureWaitsForTheSealAndTakesWhatComesLater(t *testing.T) {
	r := newSharedRig(t)
	r.exec("insert into log_sealers (log_id, root_hash) values (1, '') on conflict do nothing")
	node := id.New()
	d := r.stored(node, 0)
	r.record(node, Result{Duty: d, Attempt: failed(node), Verdict: Verdict{RetryAt: time.Now().Add(time.Hour)}})
	e := r.eraser()
	if more, err := e.EraseEvent(t.Context(), r.tenant, d.Event.ID, "asked for"); err != nil || !more {
		t.Fatalf("more %v, %v: an unsealed leaf can't be erased", more, err)
	}
	if n := r.count("select count(*) from events where erased and body = '' and headers = '' and dedup_key = '' and source_address = ''"); n != 1 {
		t.Error("the payload is there still")
	}
	if n := r.count("select count(*) from delivery_queue"); n != 0 {
		t.Errorf("%d deliveries are queued", n)
	}
	r.seal()
	if more, err := e.EraseEvent(t.Context(), r.tenant, d.Event.ID, ""); err != nil || more {
		t.Fatalf("more %v, %v", more, err)
	}
	late := succeeded(node)
	late.Late = true
	r.record(node, Result{Duty: d, Attempt: late})
	r.seal()
	r.exec("update erasures set requested_at = requested_at - interval '11 minutes', look_at = now()")
	if worked, err := e.next(t.Context()); err != nil || !worked {
		t.Fatalf("worked %v, %v", worked, err)
	}
	if n := r.count("select count(*) from attempts where leaf = '' and diagnosis = '' and response_excerpt = ''"); n != 2 {
		t.Errorf("%d leaves are erased, want 2", n)
	}
	if n := r.count("select count(*) from erasures where finished_at is not null and payload_sha256 is null"); n != 1 {
		t.Error("the duty is not finished")
	}
	var named []uint64
	for _, l := range r.leaves() {
		named = append(named, l.leaf.GetErasure().GetLeafIndexes()...)
	}
	if len(named) != 2 {
		t.Errorf("erasures name leaves %v, want 2 of them", named)
	}
}

func TestAnErasureThatFailsHoldsUpNoOther(t *testing.T) {
	r := newSharedRig(t)
	r.exec("insert into log_sealers (log_id, root_hash) values (1, '') on conflict do nothing")
	node := id.New()
	stuck, other := r.stored(node, 0), r.stored(node, 0)
	r.execAsOwner("create function refused() returns trigger language plpgsql as $$ begin raise exception 'damaged'; end $$")
	r.execAsOwner("create trigger refused before update on events for each row when (old.event_id = '" + stuck.Event.ID.String() + "') execute function refused()")
	for i, d := range []Duty{stuck, other} {
		r.exec("insert into erasures (tenant_id, event_id, reason, look_at) values ($1, $2, '', now() - make_interval(secs => $3))", r.tenant, d.Event.ID, 10-i)
	}
	e := r.eraser()
	if _, err := e.next(t.Context()); err == nil || !strings.Contains(err.Error(), id.Event.Text(stuck.Event.ID)) {
		t.Fatalf("%v: want an error that names the event", err)
	}
	if worked, err := e.next(t.Context()); err != nil || !worked {
		t.Fatalf("worked %v, %v", worked, err)
	}
	if n := r.count("select count(*) from events where erased and event_id = $1", other.Event.ID); n != 1 {
		t.Error("the other event is not erased")
	}
	if n := r.count("select count(*) from erasures where finished_at is null and look_at > now() and event_id = $1", stuck.Event.ID); n != 1 {
		t.Error("the one that failed is not to be looked at later")
	}
}

// The node that was sending an erased event's delivery is lost: its attempt is recorded all the same, with the hash of the
// payload that is gone.
func TestLostAttemptOfAnErasedEventIsRecorded(t *testing.T) {
	r := newSharedRig(t)
	r.exec("insert into log_sealers (log_id, root_hash) values (1, '') on conflict do nothing")
	d := r.stored(id.New(), 0)
	if _, err := r.eraser().EraseEvent(t.Context(), r.tenant, d.Event.ID, ""); err != nil {
		t.Fatal(err)
	}
	if n := r.sweep(); n != 1 {
		t.Fatalf("%d leaves made, want 1", n)
	}
	for _, l := range r.leaves() {
		if a := l.leaf.GetAttempt(); a != nil && ([32]byte(a.GetPayloadSha256()) != d.Event.BodySHA256 || a.GetPayloadBytes() != 2 || a.GetOutcome() != leafv1.Outcome_OUTCOME_UNKNOWN) {
			t.Errorf("got %v", a)
		}
	}
}

func TestErasureOfATenant(t *testing.T) {
	r := newSharedRig(t)
	r.exec("insert into log_sealers (log_id, root_hash) values (1, '') on conflict do nothing")
	node := id.New()
	var results []Result
	for range 30 {
		d := r.stored(node, 0)
		results = append(results, Result{Duty: d, Attempt: succeeded(node), Verdict: Verdict{Delivered: true}})
	}
	r.record(node, results...)
	waiting := r.stored(node, 0)
	r.exec("update delivery_queue set lease_owner = null where delivery_id = $1", waiting.DeliveryID)
	r.seal()
	e := r.eraser()
	if err := e.RequestTenant(t.Context(), r.db.Engine(), r.tenant, "closed"); err != nil {
		t.Fatal(err)
	}
	drain := func() {
		for worked := true; worked; {
			var err error
			if worked, err = e.next(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	drain()
	if n := r.count("select count(*) from events where not erased"); n != 0 {
		t.Errorf("%d payloads are left", n)
	}
	if n := r.count("select count(*) from attempts where leaf <> '' and delivery_id <> attempt_id"); n != 0 {
		t.Errorf("%d leaves are left", n)
	}
	if done, err := e.TenantErased(t.Context(), r.tenant); err != nil || done {
		t.Errorf("done %v, %v: what was under way may still come", done, err)
	}
	r.exec("update erasures set requested_at = requested_at - interval '11 minutes', look_at = now()")
	drain()
	if done, err := e.TenantErased(t.Context(), r.tenant); err != nil || !done {
		t.Errorf("done %v, %v", done, err)
	}
}

// The database itself refuses every other change of the ledger.
func TestLedgerLetsGoOfNothingElse(t *testing.T) {
	r := newSharedRig(t)
	r.exec("insert into log_sealers (log_id, root_hash) values (1, '') on conflict do nothing")
	node := id.New()
	r.record(node, Result{Duty: r.stored(node, 0), Attempt: succeeded(node), Verdict: Verdict{Delivered: true}})
	blank := "update attempts set leaf = '', diagnosis = '', response_excerpt = ''"
	owner, err := pgx.Connect(t.Context(), r.url)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(context.Background())
	refused := func(what, sql string) {
		t.Helper()
		if _, err := owner.Exec(t.Context(), sql); err == nil {
			t.Errorf("%s: not refused", what)
		}
	}
	refused("an unsealed leaf", blank)
	r.seal()
	refused("other bytes", "update attempts set leaf = 'x', diagnosis = '', response_excerpt = ''")
	refused("the leaf alone", "update attempts set leaf = '', diagnosis = 'kept'")
	refused("a column too", blank+", outcome = 2")
	refused("a removal", "delete from attempts")
	refused("as the engine", "set role kapsel_engine; "+blank)
}
