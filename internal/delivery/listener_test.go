package delivery

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

// hearing is an open stream whose offers are taken by a test.
type hearing struct {
	*Listener
	listeners *Listeners
	offers    chan *Offer
	ended     chan error
	stop      context.CancelFunc
}

func (n *node) listeners() *Listeners {
	return NewListeners(n.db, n.id, n.routes, n.claimer, n.dispatcher, slog.New(slog.DiscardHandler))
}

// session makes a session, as a request does.
func (r *rig) session(maxInFlight int) Stream {
	r.t.Helper()
	s := Stream{TenantID: r.tenant, SessionID: id.New(), DestinationID: r.destination("http://localhost:3000/", 8), ID: id.New(), MaxInFlight: maxInFlight}
	err := r.db.AsTenant(r.t.Context(), r.tenant, func(tx pgx.Tx) error {
		return r.db.CreateListenSession(r.t.Context(), tx, store.CreateListenSessionParams{
			TenantID: s.TenantID, SessionID: s.SessionID, DestinationID: s.DestinationID, EndpointIds: []uuid.UUID{}, MaxInFlight: int32(maxInFlight), StreamID: s.ID,
		})
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// hear opens a stream of a session on a node.
func (l *Listeners) hear(t *testing.T, stream Stream) *hearing {
	t.Helper()
	listener, err := l.Open(stream)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	h := &hearing{Listener: listener, listeners: l, offers: make(chan *Offer, 100), ended: make(chan error, 1), stop: stop}
	go func() {
		h.ended <- listener.Run(ctx, nil, func(offers []*Offer) error {
			for _, offer := range offers {
				h.offers <- offer
			}
			return nil
		})
	}()
	return h
}

func (h *hearing) next(t *testing.T) *Offer {
	t.Helper()
	select {
	case offer := <-h.offers:
		return offer
	case <-time.After(patience):
		t.Fatal("nothing was offered")
		return nil
	}
}

// end waits until the stream has ended, with that error, and closes it.
func (h *hearing) end(t *testing.T, want error) {
	t.Helper()
	select {
	case err := <-h.ended:
		if !errors.Is(err, want) {
			t.Errorf("the stream ended with %v, want %v", err, want)
		}
	case <-time.After(patience):
		t.Fatalf("the stream does not end, with %v", want)
	}
	h.Close()
}

func (h *hearing) attempts() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.inFlight)
}

func TestSilentClientIsTakenForGone(t *testing.T) {
	r := newRig(t)
	n := r.node()
	s := r.session(2)
	n.refresh()
	h := n.listeners().hear(t, s)
	first := r.due(r.event("{}"), s.DestinationID, 0, 0, uuid.Nil)
	h.next(t)
	h.stop()
	<-h.ended
	late := time.Now().Add(ReportTime)

	h.reported(uuid.Nil) // something else was, since
	if h.expire(t.Context(), late) {
		t.Error("a client that reports is taken for gone")
	}
	r.await(1, "select count(*) from delivery_queue where delivery_id = $1 and attempts = 1 and lease_owner is null", first)
	h.heard = time.Time{}
	h.take(t.Context())
	if h.attempts() != 1 {
		t.Fatalf("%d attempts in flight, want the second of the delivery", h.attempts())
	}
	if !h.expire(t.Context(), late.Add(ReportTime)) {
		t.Error("a client that reports nothing is not taken for gone")
	}
	r.await(1, "select count(*) from delivery_queue where delivery_id = $1 and attempts = 2 and lease_owner is null", first)
	for _, leaf := range r.leaves() {
		if a := leaf.GetAttempt(); a.Failure != leafv1.Failure_FAILURE_TIMEOUT || uuid.UUID(a.NodeId) != n.id || len(a.RequestHeadersSha256) == 0 {
			t.Errorf("an attempt without a report is %v", a)
		}
	}
	h.Close()
}

// What a node does not hear of, since its connection for notices was broken, it finds out.
func TestListenersFindOutWhatTheyWereNotTold(t *testing.T) {
	r := newRig(t)
	a, b := r.node(), r.node()
	s := r.session(1)
	a.refresh()
	b.refresh()
	onA, onB := a.listeners(), b.listeners()
	h := onA.hear(t, s)
	r.due(r.event("{}"), s.DestinationID, 0, 0, uuid.Nil)
	offer := h.next(t)

	recorded, err := onB.Report(t.Context(), s.TenantID, s.SessionID, offer.AttemptID, Report{StatusCode: 200, StartedAt: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	<-recorded
	if h.attempts() != 1 {
		t.Fatalf("%d attempts in flight: the node was told", h.attempts())
	}
	if silent := h.expire(t.Context(), time.Now().Add(2*ReportTime)); silent || h.attempts() != 0 {
		t.Error("an attempt that another node settled is in flight for ever, or its client taken for gone")
	}
	newer := s
	newer.ID = id.New()
	r.exec("update listen_sessions set stream_id = $1", newer.ID)
	onA.Told("")
	select {
	case <-onA.lookAgain:
	default:
		t.Error("after a broken connection nobody looks")
	}
	if err := onA.touch(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.end(t, ErrListenReplaced)

	onA.Told("nonsense from nobody")
	onA.Told(s.DestinationID.String() + " settled nothing")
	if leaves := r.leaves(); len(leaves) != 1 || leaves[0].GetAttempt().Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED {
		t.Errorf("the ledger has %v, want the attempt, once", leaves)
	}
}

// A node that was taken for dead has no result any more that counts.
func TestReportAfterALostLeaseRecordsNothing(t *testing.T) {
	r := newRig(t)
	a, b := r.node(), r.node()
	s := r.session(1)
	a.refresh()
	b.refresh()
	h := a.listeners().hear(t, s)
	deliveryID := r.due(r.event("{}"), s.DestinationID, 0, 0, uuid.Nil)
	offer := h.next(t)
	r.exec("update delivery_queue set due_at = now()") // as for the leases of dead nodes
	eventually(t, "the other node takes it over", func() bool {
		if _, err := b.claimer.claim(t.Context()); err != nil {
			t.Fatal(err)
		}
		return r.count("select count(*) from attempts where delivery_id = $1", deliveryID) == 1
	})
	for name, n := range map[string]*node{"its own node": a, "the other one": b} {
		if _, err := n.listeners().Report(t.Context(), s.TenantID, s.SessionID, offer.AttemptID, Report{StatusCode: 200}); !errors.Is(err, ErrNotInFlight) {
			t.Errorf("reported to %s after the lease was lost: %v", name, err)
		}
	}
	h.stop()
	h.end(t, context.Canceled)
	leaves := r.leaves()
	if len(leaves) != 1 || leaves[0].GetAttempt().Outcome != leafv1.Outcome_OUTCOME_UNKNOWN {
		t.Errorf("the ledger has %v, want one attempt of unknown end", leaves)
	}
}

// What was cancelled while it was under way is recorded when it is reported, wherever, and is not late.
func TestReportOfACancelledDeliveryIsRecorded(t *testing.T) {
	r := newRig(t)
	a, b := r.node(), r.node()
	s := r.session(1)
	a.refresh()
	b.refresh()
	h := a.listeners().hear(t, s)
	deliveryID := r.due(r.event("{}"), s.DestinationID, 0, 0, uuid.Nil)
	offer := h.next(t)
	r.exec(`with gone as (delete from delivery_queue where delivery_id = $1 returning *)
		insert into cancelled_leases (tenant_id, delivery_id, event_id, endpoint_id, destination_id, attempts, lease_owner, lease_ends_at)
		select tenant_id, delivery_id, event_id, endpoint_id, destination_id, attempts, lease_owner, due_at from gone`, deliveryID)
	recorded, err := b.listeners().Report(t.Context(), s.TenantID, s.SessionID, offer.AttemptID, Report{StatusCode: 500})
	if err != nil {
		t.Fatal(err)
	}
	<-recorded
	leaves := r.leaves()
	if len(leaves) != 1 || leaves[0].GetAttempt().StatusCode != 500 || leaves[0].GetAttempt().Late || uuid.UUID(leaves[0].GetAttempt().NodeId) != a.id {
		t.Errorf("the ledger has %v, want the attempt of the node that sent it, not late", leaves)
	}
	h.stop()
	h.end(t, context.Canceled)
}
