package delivery

import (
	"fmt"
	"log/slog"
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/id"
)

func (n *node) holder() *Holder {
	return NewHolder(n.db, n.routes, n.dispatcher, n.claimer, slog.New(slog.DiscardHandler))
}

func (n *node) tick(h *Holder) {
	n.t.Helper()
	if err := h.tick(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

// backlog queues many due deliveries of one event.
func (r *rig) backlog(destination uuid.UUID, rows int) {
	r.t.Helper()
	r.exec(`insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at)
		select $1, gen_random_uuid(), $2, $3, $4, now() - interval '1 hour' from generate_series(1, $5)`,
		r.tenant, r.event("{}").ID, r.endpoint, destination, rows)
}

func (r *rig) setState(destination uuid.UUID, state string) {
	r.t.Helper()
	r.exec(`update destinations set state = $2 where destination_id = $1`, destination, state)
}

const dueRows = "select count(*) from delivery_queue where due_at <= now()"

func TestBacklogOfPausedDestinationIsOutOfTheClaimsWay(t *testing.T) {
	const backlog = 100_000
	n := newRig(t).node()
	sink := new(counter)
	url := newSink(t, sink.ServeHTTP).URL
	paused, healthy := n.destination(url, 8), n.destination(url, 8)
	n.setState(paused, "paused")
	n.refresh()
	n.backlog(paused, backlog)
	h := n.holder()
	for ticks := 0; n.count(dueRows) > 0; ticks++ {
		if ticks > backlog/(holdPage*maxHoldSteps)+1 {
			t.Fatalf("after %d steps %d rows are still due", ticks, n.count(dueRows))
		}
		n.tick(h)
	}
	if got := n.count("select count(*) from delivery_queue where due_at = $1 and attempts = 0 and lease_owner is null", HeldUntil(paused)); got != backlog {
		t.Errorf("%d of %d are held", got, backlog)
	}
	for i := range 20 {
		n.due(n.event(fmt.Sprint(i)), healthy, 0, 0, uuid.Nil)
	}
	if got := n.claim(); got != 20 {
		t.Errorf("claimed %d, want the 20 of the healthy destination", got)
	}
	n.await(0, "select count(*) from delivery_queue where destination_id = $1", healthy)
	n.stop()
}

func TestBacklogOfResumedDestinationComesBackByAndBy(t *testing.T) {
	n := newRig(t).node()
	destination, other := n.destination("http://127.0.0.1:1/", 8), n.destination("http://127.0.0.1:1/", 8)
	for _, d := range []uuid.UUID{destination, other} {
		n.setState(d, "paused")
		n.backlog(d, 1000)
	}
	n.refresh()
	h := n.holder()
	n.tick(h)
	if got := n.count(dueRows); got != 0 {
		t.Fatalf("%d rows are due of paused destinations", got)
	}
	n.setState(destination, "enabled")
	n.refresh()
	for _, want := range []int{10, 30, 70, 150, 310, 630, 1000, 1000} {
		n.tick(h)
		if got := n.count(dueRows); got != want {
			t.Errorf("%d rows are due, want %d", got, want)
		}
	}
	if got := n.count("select count(*) from delivery_queue where destination_id = $1 and due_at > now()", other); got != 1000 {
		t.Errorf("%d of 1000 rows of the destination that is still paused are held", got)
	}
	if len(h.paces) != 0 {
		t.Error("the pace of a destination that has all its deliveries back is still kept")
	}
}

func TestBacklogComesBackAtTheRateBeforeTheBreakerOpened(t *testing.T) {
	n := newRig(t).node()
	destination := n.destination("http://127.0.0.1:1/", 8)
	n.setState(destination, "paused")
	n.backlog(destination, 3000)
	n.refresh()
	h := n.holder()
	n.tick(h)
	n.setState(destination, "enabled")
	n.refresh()
	for range 5 {
		n.tick(h)
	}
	a := n.dispatcher.health.account(n.tenant, destination)
	interval := func(state breakerState, pauses int) int {
		t.Helper()
		a.mu.Lock()
		a.breaker.reset()
		a.breaker.state, a.breaker.pauses, a.breaker.probeAt = state, pauses, time.Now().Add(time.Hour)
		a.changed = false // it is not this test's to tell the database
		n.dispatcher.health.setGate(a)
		a.mu.Unlock()
		before := n.count(dueRows)
		n.tick(h)
		return n.count(dueRows) - before
	}
	if got := interval(breakerClosed, 0); got != 320 {
		t.Fatalf("%d rows came back in the sixth interval, want 320", got)
	}
	if got := interval(breakerOpen, 1); got >= 0 {
		t.Errorf("%d rows became due while the breaker was open", got)
	}
	for i, want := range []int{160, 320} {
		if got := interval(breakerClosed, 0); got != want {
			t.Errorf("%d rows came back in interval %d after a pause, want %d", got, i, want)
		}
	}
	for pauses := range 3 {
		interval(breakerOpen, pauses+1)
	}
	if got := interval(breakerClosed, 0); got != 40 {
		t.Errorf("%d rows came back after three pauses, want 40", got)
	}
	for range 8 {
		interval(breakerOpen, 10)
	}
	if got := interval(breakerClosed, 0); got != firstRelease {
		t.Errorf("%d rows came back after a long absence, want %d", got, firstRelease)
	}
}

func TestResumedDestinationsBacklogComesBackAtItsRate(t *testing.T) {
	n := newRig(t).node()
	destination := n.destination("http://127.0.0.1:1/", 8)
	n.exec(`update destinations set rate_per_second = 8, state = 'paused'`)
	n.backlog(destination, 100)
	n.refresh()
	h := n.holder()
	n.tick(h)
	n.setState(destination, "enabled")
	n.refresh()
	for _, want := range []int{2, 4, 6} {
		n.tick(h)
		if got := n.count(dueRows); got != want {
			t.Errorf("%d rows are due, want %d", got, want)
		}
	}
}

func TestPauseTakesBackWhatWaitsAndResumeSendsEachOnce(t *testing.T) {
	n := newRig(t).node()
	g := newGate()
	destination := n.destination(newSink(t, g.ServeHTTP).URL, 2)
	n.refresh()
	for i := range 30 {
		n.hold(n.leased(n.event(fmt.Sprint(i)), destination, time.Now().Add(DefaultLease)))
	}
	eventually(t, "two are in flight", func() bool { return g.inside.Load() == 2 })
	n.setState(destination, "paused")
	n.refresh()
	h := n.holder()
	n.tick(h)
	if got := n.count("select count(*) from delivery_queue where due_at = $1 and lease_owner is null", HeldUntil(destination)); got != 28 {
		t.Errorf("%d of the 28 that waited are held", got)
	}
	close(g.open)
	n.await(28, liveRows)
	if got := g.arrived.Load(); got != 2 {
		t.Errorf("%d requests, want those that were in flight", got)
	}
	n.setState(destination, "enabled")
	n.refresh()
	stop := n.run()
	for range 3 {
		n.tick(h)
	}
	n.await(0, liveRows)
	stop()
	if got := g.arrived.Load(); got != 30 {
		t.Errorf("%d requests for 30 deliveries", got)
	}
}

// The lost attempt is recorded even while its destination is paused, so its row is not put off.
func TestLostNodesRowsAreNotHeld(t *testing.T) {
	n := newRig(t).node()
	destination := n.destination("http://127.0.0.1:1/", 8)
	n.setState(destination, "paused")
	n.refresh()
	n.due(n.event("{}"), destination, 0, -time.Second, id.New())
	n.tick(n.holder())
	if got := n.count(dueRows); got != 1 {
		t.Errorf("%d rows are due, want 1", got)
	}
}

func TestGoneDestinationIsDisabled(t *testing.T) {
	n := newRig(t).node()
	destination := n.destination(newSink(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }).URL, 8)
	n.refresh()
	for i := range 3 {
		n.hold(n.leased(n.event(fmt.Sprint(i)), destination, time.Now().Add(DefaultLease)))
	}
	n.await(0, liveRows)
	n.tick(n.holder())
	const disabled = "select count(*) from destinations where state = 'disabled' and disable_reason = 1 and state_detail like '%410%'"
	if got := n.count(disabled); got != 1 {
		t.Errorf("%d destinations are disabled as gone, want 1", got)
	}
	n.stop()
}

// The owner mended it while an attempt was under way: its answer is of the time before.
func TestAnswerFromBeforeAResumeDoesNotDisableAgain(t *testing.T) {
	n := newRig(t).node()
	g := newGate()
	destination := n.destination(newSink(t, func(w http.ResponseWriter, r *http.Request) {
		g.ServeHTTP(w, r)
		w.WriteHeader(http.StatusGone)
	}).URL, 8)
	n.refresh()
	n.hold(n.leased(n.event("before"), destination, time.Now().Add(DefaultLease)))
	eventually(t, "it is in flight", func() bool { return g.inside.Load() == 1 })
	n.exec(`update destinations set updated_at = clock_timestamp()`) // as a pause and a resume do
	n.refresh()
	close(g.open)
	n.await(0, liveRows)
	h := n.holder()
	n.tick(h)
	const enabled = "select count(*) from destinations where state = 'enabled'"
	if got := n.count(enabled); got != 1 {
		t.Error("the old answer disabled it")
	}
	n.hold(n.leased(n.event("after"), destination, time.Now().Add(DefaultLease)))
	n.await(0, liveRows)
	n.tick(h)
	if got := n.count(enabled); got != 0 {
		t.Error("the new answer did not disable it")
	}
	n.stop()
}

func TestPauseByTheOwnerIsNotOverwritten(t *testing.T) {
	n := newRig(t).node()
	destination := n.destination(newSink(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }).URL, 8)
	n.refresh()
	n.hold(n.leased(n.event("{}"), destination, time.Now().Add(DefaultLease)))
	n.await(0, liveRows)
	n.setState(destination, "paused")
	n.tick(n.holder())
	if got := n.count("select count(*) from destinations where state = 'paused' and disable_reason = 0"); got != 1 {
		t.Error("the pause was overwritten")
	}
	n.stop()
}

func TestDeliveryWhoseEventWasRemovedIsCancelled(t *testing.T) {
	n := newRig(t).node()
	sink := new(counter)
	destination := n.destination(newSink(t, sink.ServeHTTP).URL, 8)
	n.refresh()
	gone, kept := newEvent(nil), n.event("{}")
	n.due(gone, destination, 3, -time.Second, uuid.Nil)
	n.due(kept, destination, 0, 0, uuid.Nil)
	n.claim()
	n.await(0, liveRows)
	if got := n.count("select count(*) from cancellations where event_id = $1 and attempts = 3 and reason <> ''", gone.ID); got != 1 {
		t.Errorf("%d cancellations, want 1", got)
	}
	if len(sink.attempts(kept.ID)) != 1 {
		t.Error("the other delivery of the batch was not made")
	}
	n.stop()
}

func TestMomentsOfDestinationsAreFarAwayAndDiffer(t *testing.T) {
	seen := make(map[time.Time]bool)
	for range 1000 {
		moment := HeldUntil(id.New())
		if moment.Before(heldFrom) || seen[moment] || moment.Truncate(time.Microsecond) != moment {
			t.Fatalf("moment %v", moment)
		}
		seen[moment] = true
	}
}
