package delivery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

// gate is a sink that holds each request until it is let through.
type gate struct {
	open    chan struct{}
	inside  atomic.Int64
	peak    atomic.Int64
	arrived atomic.Int64
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

func (g *gate) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	g.arrived.Add(1)
	inside := g.inside.Add(1)
	for peak := g.peak.Load(); inside > peak && !g.peak.CompareAndSwap(peak, inside); peak = g.peak.Load() {
	}
	<-g.open
	g.inside.Add(-1)
}

const liveRows = "select count(*) from delivery_queue"

func TestLaneSendsJustMaxInFlightAtOnce(t *testing.T) {
	const limit, jobs = 4, 40
	n := newRig(t).node()
	g := newGate()
	destination := n.destination(newSink(t, g.ServeHTTP).URL, limit)
	n.refresh()
	for i := range jobs {
		n.hold(n.leased(n.event(fmt.Sprint(i)), destination, time.Now().Add(DefaultLease)))
	}
	eventually(t, "the lane is full", func() bool { return g.inside.Load() == limit })
	time.Sleep(50 * time.Millisecond) // a fifth one would come now
	if got := g.arrived.Load(); got != limit {
		t.Fatalf("%d requests at once, want %d", got, limit)
	}
	for i := range jobs {
		g.open <- struct{}{} // one is let through, and one comes in for it
		want := min(int64(limit+i+1), jobs)
		eventually(t, "the next request", func() bool { return g.arrived.Load() == want })
	}
	n.await(0, liveRows)
	if g.peak.Load() != limit {
		t.Errorf("%d requests at once, want %d", g.peak.Load(), limit)
	}
	eventually(t, "all room is given back", func() bool {
		return n.dispatcher.held.Load() == 0 && n.dispatcher.heldBytes.Load() == 0 && n.dispatcher.lane(destination).held.Load() == 0
	})
	n.stop()
}

func TestDeadDestinationHoldsUpNobodyElse(t *testing.T) {
	n := newRig(t).node()
	dead, alive := newGate(), newGate()
	close(alive.open)
	deadID := n.destination(newSink(t, dead.ServeHTTP).URL, 3)
	aliveID := n.destination(newSink(t, alive.ServeHTTP).URL, 3)
	n.refresh()
	for i := range 50 {
		n.hold(n.leased(n.event(fmt.Sprint(i)), deadID, time.Now().Add(DefaultLease)))
	}
	for i := range 20 {
		n.hold(n.leased(n.event(fmt.Sprint(i)), aliveID, time.Now().Add(DefaultLease)))
	}
	n.await(0, "select count(*) from delivery_queue where destination_id = $1", aliveID)
	if got := n.count("select count(*) from delivery_queue where destination_id = $1", deadID); got != 50 {
		t.Errorf("%d of 50 deliveries wait for the dead destination", got)
	}
	close(dead.open)
	n.await(0, liveRows)
	n.stop()
}

func TestWhatItsLeaseIsTooShortForGoesBackUnsent(t *testing.T) {
	n := newRig(t).node()
	g := newGate()
	destination := n.destination(newSink(t, g.ServeHTTP).URL, 1)
	n.refresh()
	needed := n.routes.Snapshot().Destination(destination).Timeout + sendMargin
	const given = "select count(*) from delivery_queue where lease_owner is null and due_at <= now() and attempts = 0"

	n.hold(n.leased(n.event("too short from the start"), destination, time.Now().Add(needed-time.Second)))
	n.await(1, given)
	n.hold(n.leased(n.event("in flight"), destination, time.Now().Add(DefaultLease)))
	eventually(t, "the first is in flight", func() bool { return g.inside.Load() == 1 })
	n.hold(n.leased(n.event("too short by its turn"), destination, time.Now().Add(needed+200*time.Millisecond)))
	n.hold(n.leased(n.event("long enough"), destination, time.Now().Add(DefaultLease)))
	time.Sleep(300 * time.Millisecond)
	close(g.open)
	n.await(2, given)
	n.await(2, liveRows)
	if got := g.arrived.Load(); got != 2 {
		t.Errorf("%d requests, want 2", got)
	}
	eventually(t, "all room is given back", func() bool { return n.dispatcher.held.Load() == 0 })
	n.stop()
}

func TestStopGivesBackTheUnsentAndWaitsForTheRest(t *testing.T) {
	n := newRig(t).node()
	before := goleak.IgnoreCurrent()
	g := newGate()
	destination := n.destination(newSink(t, g.ServeHTTP).URL, 2)
	n.refresh()
	for i := range 10 {
		n.hold(n.leased(n.event(fmt.Sprint(i)), destination, time.Now().Add(DefaultLease)))
	}
	eventually(t, "two are in flight", func() bool { return g.inside.Load() == 2 })

	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := n.dispatcher.Stop(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop while two are in flight: got %v", err)
	}
	if got := n.count("select count(*) from delivery_queue where lease_owner is null and due_at <= now()"); got != 8 {
		t.Errorf("%d of the 8 unsent were given back", got)
	}
	job := n.leased(n.event("late"), destination, time.Now().Add(DefaultLease))
	if n.dispatcher.Reserve(job.Destination, 4) {
		t.Error("a stopped dispatcher has room")
	}
	n.dispatcher.reserve(job.Destination, 4)
	n.dispatcher.Hold(job) // reserved before the stop
	n.await(9, "select count(*) from delivery_queue where lease_owner is null")

	close(g.open)
	n.stop()
	n.await(9, liveRows)
	if got := g.arrived.Load(); got != 2 {
		t.Errorf("%d requests, want 2", got)
	}
	for _, leaf := range n.leaves() {
		if leaf.GetAttempt().GetOutcome() != leafv1.Outcome_OUTCOME_SUCCEEDED {
			t.Errorf("leaf: %v", leaf)
		}
	}
	n.dispatcher.sender.Close()
	if err := goleak.Find(before, goleak.IgnoreTopFunction("net/http.(*Server).Serve"), goleak.IgnoreAnyFunction("net/http.(*conn).serve"),
		goleak.IgnoreAnyFunction("net/http/httptest.(*Server).goServe.func1"), goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"),
		goleak.IgnoreAnyFunction("github.com/jackc/pgx/v5/pgxpool.NewWithConfig.func4")); err != nil {
		t.Error(err)
	}
}

func TestRoomIsBounded(t *testing.T) {
	n := newRig(t).node()
	one, other := newDestination(t, "http://127.0.0.1:1/"), newDestination(t, "http://127.0.0.1:1/")
	for i := range maxHeldLane {
		if !n.dispatcher.Reserve(one, 1) {
			t.Fatalf("no room after %d of %d", i, maxHeldLane)
		}
	}
	if n.dispatcher.Reserve(one, 1) {
		t.Error("a lane takes more than its bound")
	}
	if full := n.dispatcher.FullDestinations(n.routes.Snapshot()); len(full) != 1 || full[0] != one.ID {
		t.Errorf("full destinations: %v", full)
	}
	if n.dispatcher.Reserve(other, maxHeldBytes) {
		t.Error("more bytes are held than their bound")
	}
	if !n.dispatcher.Reserve(other, 10) {
		t.Error("one full lane leaves no room for others")
	}
	if got := n.dispatcher.laneRoom(one, false); got != maxClaim {
		t.Errorf("room for %d from the queue when intake has filled the lane, want %d", got, maxClaim)
	}
	n.dispatcher.Unreserve(one, 1)
	if !n.dispatcher.Reserve(one, 1) {
		t.Error("room that was given back is not there")
	}
	for n.dispatcher.Room() > 0 {
		if !n.dispatcher.Reserve(nil, 1) {
			t.Fatalf("no room although there is some for %d", n.dispatcher.Room())
		}
	}
	if n.dispatcher.Reserve(other, 1) || n.dispatcher.Reserve(nil, 0) {
		t.Error("more is held than the bound")
	}
	paused := newDestination(t, "http://127.0.0.1:1/")
	paused.Active = false
	n.dispatcher.Unreserve(nil, 1)
	if n.dispatcher.Reserve(paused, 1) {
		t.Error("a paused destination gets room")
	}
}
