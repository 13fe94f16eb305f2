package ledger

import (
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

// cancelled queues a delivery of an event that is there, which owner holds, and cancels it.
func (r *rig) cancelled(owner uuid.UUID, attempts int) Duty {
	r.t.Helper()
	d := r.duty(owner, attempts)
	r.exec(`insert into events (tenant_id, event_id, endpoint_id, received_at, body, headers, content_type, event_type, dedup_key, source_address, verification, defect)
		values ($1, $2, $3, now(), '{}', '', '', '', '', '', 'none', '')`, r.tenant, d.Event.ID, d.Event.EndpointID)
	r.cancel(d)
	return d
}

func (r *rig) cancel(d Duty) {
	r.t.Helper()
	err := r.db.AsTenant(r.t.Context(), r.tenant, func(tx pgx.Tx) error {
		return r.db.CancelDelivery(r.t.Context(), tx, "enough", r.tenant, d.DeliveryID)
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// sweep ends all leases of cancelled deliveries and settles them. It returns how many leaves that made.
func (r *rig) sweep() (leaves int) {
	r.t.Helper()
	r.exec("update cancelled_leases set lease_ends_at = now() - interval '1 s'")
	c := NewCancelledLeases(r.db, id.New(), testLogID, slog.New(slog.DiscardHandler), func(n int) { leaves += n })
	if err := c.sweep(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	if left := r.count("select count(*) from cancelled_leases"); left != 0 {
		r.t.Errorf("%d leases are left, want none", left)
	}
	return leaves
}

func TestNodeThatDiesWithACancelledDeliveryLeavesAnUnknownAttempt(t *testing.T) {
	r := newSharedRig(t)
	node := id.New()
	d := r.cancelled(node, 2)
	if queued := r.count("select count(*) from delivery_queue"); queued != 0 {
		t.Errorf("%d queue rows after the cancellation, want none", queued)
	}
	if n := r.sweep(); n != 1 {
		t.Fatalf("%d leaves made, want 1", n)
	}
	leaves := r.leaves()
	if len(leaves) != 1 {
		t.Fatalf("%d leaves, want 1", len(leaves))
	}
	a := leaves[0].leaf.GetAttempt()
	if a.GetOutcome() != leafv1.Outcome_OUTCOME_UNKNOWN || a.GetFailure() != leafv1.Failure_FAILURE_WORKER_LOST || a.GetNumber() != 3 ||
		uuid.UUID(a.GetNodeId()) != node || uuid.UUID(a.GetDeliveryId()) != d.DeliveryID || a.GetPayloadBytes() != 2 ||
		[32]byte(a.GetPayloadSha256()) != d.Event.BodySHA256 || a.GetLate() {
		t.Errorf("got %v", a)
	}
	if n := r.sweep(); n != 0 {
		t.Errorf("%d leaves made by another sweep, want none", n)
	}
}

func TestNodeThatRecordsItsCancelledDeliveryLeavesNoOtherAttempt(t *testing.T) {
	r := newSharedRig(t)
	node := id.New()
	delivered, failing, dying := r.cancelled(node, 0), r.cancelled(node, 1), r.cancelled(node, 2)
	r.record(node,
		Result{Duty: delivered, Attempt: succeeded(node), Verdict: Verdict{Delivered: true}},
		Result{Duty: failing, Attempt: failed(node), Verdict: Verdict{RetryAt: time.Now().Add(time.Hour)}},
		Result{Duty: dying, Attempt: failed(node), Verdict: Verdict{Dead: leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXHAUSTED}},
	)
	if n := r.sweep(); n != 0 {
		t.Errorf("%d leaves made, want none", n)
	}
	if n := len(r.leaves()); n != 3 {
		t.Errorf("%d leaves, want 3", n)
	}
	if n := r.count("select (select count(*) from delivery_queue) + (select count(*) from dead_letters)"); n != 0 {
		t.Errorf("%d rows of cancelled deliveries are queued or dead, want none", n)
	}
}

// A late result of an earlier attempt is not the one that was under way.
func TestLateResultOfAnEarlierAttemptDoesNotHideALostOne(t *testing.T) {
	r := newSharedRig(t)
	slow, node := id.New(), id.New()
	d := r.cancelled(node, 1)
	earlier := d
	earlier.Attempts = 0
	late := succeeded(slow)
	late.Late = true
	r.record(slow, Result{Duty: earlier, Attempt: late})
	if n := r.sweep(); n != 1 {
		t.Errorf("%d leaves made, want 1", n)
	}
}

func TestLostAttemptThatNobodyTookOverIsRecordedAfterACancellation(t *testing.T) {
	r := newSharedRig(t)
	lost := id.New()
	d := r.duty(lost, 0)
	r.exec(`insert into events (tenant_id, event_id, endpoint_id, received_at, body, headers, content_type, event_type, dedup_key, source_address, verification, defect)
		values ($1, $2, $3, now(), '{}', '', '', '', '', '', 'none', '')`, r.tenant, d.Event.ID, d.Event.EndpointID)
	r.exec("update delivery_queue set lease_owner = null, lost_owner = $1, due_at = now()", lost)
	r.cancel(d)
	if n := r.sweep(); n != 1 {
		t.Fatalf("%d leaves made, want 1", n)
	}
	if a := r.leaves()[0].leaf.GetAttempt(); uuid.UUID(a.GetNodeId()) != lost || a.GetNumber() != 1 {
		t.Errorf("got %v", a)
	}
}

func TestCancelledDeliveryThatNobodyHoldsLeavesNoLease(t *testing.T) {
	r := newSharedRig(t)
	d := r.duty(id.New(), 1)
	r.exec("update delivery_queue set lease_owner = null")
	r.cancel(d)
	if n := r.count("select count(*) from cancelled_leases"); n != 0 {
		t.Errorf("%d leases, want none", n)
	}
}

func TestLeaseGivenBackAfterACancellationLeavesNoAttempt(t *testing.T) {
	r := newSharedRig(t)
	node, other := id.New(), id.New()
	d, kept, later := r.cancelled(node, 0), r.cancelled(other, 0), r.cancelled(node, 1)
	_, err := r.db.ReleaseLeases(t.Context(), r.db.Engine(), store.ReleaseLeasesParams{
		TenantIds:   []uuid.UUID{r.tenant, r.tenant, r.tenant},
		DeliveryIds: []uuid.UUID{d.DeliveryID, kept.DeliveryID, later.DeliveryID}, Attempts: []int32{0, 0, 0}, NodeID: node,
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := r.sweep(); n != 2 {
		t.Errorf("%d leaves made, want 2: of the node that gave nothing back, and of an attempt after the one that was given back", n)
	}
}

func TestLeasesOfDeadNodesEndEarly(t *testing.T) {
	r := newSharedRig(t)
	dead, alive, me := id.New(), id.New(), id.New()
	r.exec(`insert into nodes (node_id, name, version, roles, heartbeat_at) values
		($1, '', '', '{}', now() - interval '10 s'), ($2, '', '', '{}', now())`, dead, alive)
	r.cancelled(dead, 0)
	r.cancelled(alive, 0)
	if _, err := r.db.ExpireLeasesOfDeadNodes(t.Context(), r.db.Engine(), 75, me, 5); err != nil {
		t.Fatal(err)
	}
	if n := r.count("select count(*) from cancelled_leases where lease_ends_at <= now() and lease_owner = $1", dead); n != 1 {
		t.Errorf("%d ended leases of the dead node, want 1", n)
	}
	if n := r.count("select count(*) from cancelled_leases where lease_ends_at <= now()"); n != 1 {
		t.Errorf("%d ended leases, want 1", n)
	}
}

func TestManySweepersRecordALostAttemptOnce(t *testing.T) {
	r := newSharedRig(t)
	for range 30 {
		r.cancelled(id.New(), 0)
	}
	r.exec("update cancelled_leases set lease_ends_at = now() - interval '1 s'")
	var group sync.WaitGroup
	for range 4 {
		c := NewCancelledLeases(r.db, id.New(), testLogID, slog.New(slog.DiscardHandler), func(int) {})
		group.Go(func() {
			if err := c.sweep(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := len(r.leaves()); n != 30 {
		t.Errorf("%d leaves, want 30", n)
	}
}
