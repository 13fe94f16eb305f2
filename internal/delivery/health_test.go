package delivery

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
)

// shortPause is long enough to see that nothing is sent, and short enough to wait for its end.
const shortPause = 700 * time.Millisecond

// flaky is a sink that answers 500 while it is broken.
type flaky struct {
	counter
	broken   atomic.Bool
	requests atomic.Int64
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.requests.Add(1)
	if f.broken.Load() {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	f.counter.ServeHTTP(w, r)
}

// breakerNode makes a node with short pauses and its holder.
func (r *rig) breakerNode(pause time.Duration) (*node, *Holder) {
	n := r.node()
	n.dispatcher.SetBreakerPause(pause)
	return n, n.holder()
}

// patient makes a destination that tries failed deliveries again soon, and for ever.
func (r *rig) patient(url string, maxInFlight int) uuid.UUID {
	destination := r.destination(url, maxInFlight)
	r.exec(`update destinations set retry_policy = '{"schedule":["0s"],"maxAttempts":100,"jitter":0}' where destination_id = $1`, destination)
	return destination
}

// step is what a node does in a moment: it claims, and its holder ticks.
func (n *node) step(h *Holder) {
	n.t.Helper()
	n.claim()
	n.tick(h)
}

func (n *node) openBreaker(h *Holder, destination uuid.UUID) {
	n.t.Helper()
	eventually(n.t, "the breaker opens", func() bool {
		n.step(h)
		return n.count("select count(*) from destination_health where destination_id = $1 and breaker <> 1", destination) == 1
	})
}

const openedEvents = "select count(*) from operational_events where kind = 'breaker_opened'"

func TestBreakerOpensAfterFiveFailuresAndNothingIsSentThen(t *testing.T) {
	n, h := newRig(t).breakerNode(time.Hour)
	sink := new(flaky)
	sink.broken.Store(true)
	destination := n.patient(newSink(t, sink.ServeHTTP).URL, 1)
	n.refresh()
	for i := range 20 {
		n.due(n.event(fmt.Sprint(i)), destination, 0, 0, uuid.Nil)
	}
	n.openBreaker(h, destination)
	eventually(t, "all are held", func() bool {
		n.step(h)
		return n.count("select count(*) from delivery_queue where due_at = $1 and lease_owner is null", HeldUntil(destination)) == 20
	})
	n.step(h)
	if got := sink.requests.Load(); got != 5 {
		t.Errorf("%d requests, want the five that opened the breaker", got)
	}
	if got := n.count("select sum(attempts) from delivery_queue"); got != 5 {
		t.Errorf("%d attempts are used up, want 5", got)
	}
	if n.dispatcher.Reserve(n.routes.Snapshot().Destination(destination), 1) {
		t.Error("a new delivery got room")
	}
	if got := n.count(openedEvents); got != 1 {
		t.Errorf("%d events say that it opened, want 1", got)
	}
	n.stop()
}

func TestRecoveredDestinationGetsEachDeliveryOnce(t *testing.T) {
	n, h := newRig(t).breakerNode(shortPause)
	sink := new(flaky)
	sink.broken.Store(true)
	destination := n.patient(newSink(t, sink.ServeHTTP).URL, 4)
	n.refresh()
	var events []*ledger.Event
	for i := range 60 {
		events = append(events, n.event(fmt.Sprint(i)))
		n.due(events[i], destination, 0, 0, uuid.Nil)
	}
	n.openBreaker(h, destination)
	sink.broken.Store(false)
	eventually(t, "all are delivered", func() bool {
		n.step(h)
		return n.count(liveRows) == 0
	})
	for _, e := range events {
		if got := len(sink.attempts(e.ID)); got != 1 {
			t.Errorf("event %s was taken %d times", e.ID, got)
		}
	}
	if got := n.count("select count(*) from operational_events where kind = 'breaker_closed'"); got != 1 {
		t.Errorf("%d events say that it closed, want 1", got)
	}
	if got := n.count("select count(*) from destination_health where breaker = 1 and pauses = 0 and consecutive_failures = 0 and failing_since is null and last_success_at is not null"); got != 1 {
		t.Error("its health does not say that it works")
	}
	if n.dispatcher.health.gates.Load() != 0 {
		t.Error("a gate is still shut")
	}
	n.stop()
}

// Two nodes hold a backlog of a destination that stays down: each pause ends with one request, whoever makes it, and each
// pause is longer than the one before.
func TestTwoNodesProbeOneAtATime(t *testing.T) {
	r := newRig(t)
	first, firstHolder := r.breakerNode(shortPause)
	second, secondHolder := r.breakerNode(shortPause)
	sink := new(flaky)
	sink.broken.Store(true)
	destination := r.patient(newSink(t, sink.ServeHTTP).URL, 1)
	first.refresh()
	second.refresh()
	for i := range 10 {
		r.due(r.event(fmt.Sprint(i)), destination, 0, 0, uuid.Nil)
	}
	first.openBreaker(firstHolder, destination)
	before := sink.requests.Load()
	eventually(t, "the other node learns of it", func() bool {
		second.tick(secondHolder)
		return second.dispatcher.health.isShut(destination)
	})
	eventually(t, "two probes failed", func() bool {
		first.step(firstHolder)
		second.step(secondHolder)
		return r.count("select count(*) from destination_health where pauses = 3 and breaker = 2") == 1
	})
	if got := sink.requests.Load() - before; got != 2 {
		t.Errorf("%d requests for two probes", got)
	}
	if got := r.count("select count(*) from destination_health where probe_at > now() + $1::float8 * interval '1 s'", (3 * shortPause).Seconds()); got != 1 {
		t.Error("the third pause is not four times as long as the first")
	}
	if got := r.count(openedEvents); got != 1 {
		t.Errorf("%d events say that it opened, want 1: it never closed", got)
	}
	first.stop()
	second.stop()
}

// Whoever loses the race to write adopts what stands.
func TestNodesAgreeOnOneBreaker(t *testing.T) {
	r := newRig(t)
	first, firstHolder := r.breakerNode(time.Hour)
	second, secondHolder := r.breakerNode(time.Hour)
	destination := r.patient("http://127.0.0.1:1/", 1)
	first.refresh()
	second.refresh()
	for _, n := range []*node{first, second} {
		n.fail(destination, 5)
	}
	first.tick(firstHolder)
	second.tick(secondHolder)
	if got := r.count("select count(*) from destination_health where breaker = 2 and generation = 1 and consecutive_failures = 10"); got != 1 {
		t.Error("there is not one open breaker, of generation 1, after ten failures")
	}
	a, b := first.dispatcher.health.find(destination), second.dispatcher.health.find(destination)
	if a.changed || b.changed || a.generation != 1 || b.generation != 1 {
		t.Errorf("generations %d and %d, changed %v and %v", a.generation, b.generation, a.changed, b.changed)
	}
	if got := r.count(openedEvents); got != 1 {
		t.Errorf("%d events say that it opened, want 1", got)
	}
}

// fail notes failed attempts of this moment.
func (n *node) fail(destination uuid.UUID, attempts int) {
	for range attempts {
		n.dispatcher.health.note(n.routes.Snapshot().Destination(destination), &ledger.Attempt{
			ID: id.New(), Outcome: leafv1.Outcome_OUTCOME_FAILED, Failure: leafv1.Failure_FAILURE_CONNECT, StartedAt: time.Now(), Diagnosis: "refused",
		})
	}
}

func TestResetClosesTheBreakerOfAllNodes(t *testing.T) {
	n, h := newRig(t).breakerNode(time.Hour)
	destination := n.patient("http://127.0.0.1:1/", 1)
	n.refresh()
	n.fail(destination, 5)
	n.tick(h)
	if !n.dispatcher.health.isShut(destination) {
		t.Fatal("the breaker is not open")
	}
	if err := n.db.ResetBreaker(t.Context(), n.db.Engine(), n.tenant, destination); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node learns of it", func() bool {
		n.tick(h)
		return !n.dispatcher.health.isShut(destination)
	})
	n.fail(destination, 4)
	if n.dispatcher.health.isShut(destination) {
		t.Error("earlier failures still count")
	}
}

func TestNodeThatStartsKnowsOpenBreakers(t *testing.T) {
	r := newRig(t)
	n, h := r.breakerNode(time.Hour)
	destination := n.patient("http://127.0.0.1:1/", 1)
	n.refresh()
	n.fail(destination, 5)
	n.tick(h)
	r.exec("update destination_health set changed_at = now() - interval '1 day'")
	late, lateHolder := r.breakerNode(time.Hour)
	late.tick(lateHolder)
	if !late.dispatcher.health.isShut(destination) {
		t.Error("it does not")
	}
}

// A standby that was behind, and is the primary now, does not know that the breaker opened.
func TestBreakerFollowsADatabaseThatWasSetBack(t *testing.T) {
	n, h := newRig(t).breakerNode(shortPause)
	sink := new(counter)
	destination := n.patient(newSink(t, sink.ServeHTTP).URL, 1)
	n.refresh()
	n.due(n.event("{}"), destination, 0, 0, uuid.Nil)
	n.fail(destination, 5)
	n.tick(h)
	n.exec(`update destination_health set breaker = 1, pauses = 0, probe_at = null, generation = 0, changed_at = now() - interval '1 day'`)
	eventually(t, "it is delivered", func() bool {
		n.step(h)
		return n.count(liveRows) == 0
	})
	n.fail(destination, 5)
	eventually(t, "the next opening is shared", func() bool {
		n.tick(h)
		return n.count("select count(*) from destination_health where breaker = 2") == 1
	})
	n.stop()
}

func TestBreakerOpensWhileTheDatabaseIsAway(t *testing.T) {
	r := newRig(t)
	n, h := r.breakerNode(time.Hour)
	destination := n.patient("http://127.0.0.1:1/", 1)
	n.refresh()
	n.fail(destination, 7)
	away, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.tick(away); err == nil {
		t.Fatal("no error without a database")
	}
	if !n.dispatcher.health.isShut(destination) {
		t.Error("the breaker waits for the database")
	}
	n.tick(h)
	if got := r.count("select count(*) from destination_health where breaker = 2 and consecutive_failures = 7 and last_diagnosis = 'refused'"); got != 1 {
		t.Error("what happened meanwhile was not handed in")
	}
}

func TestDestinationThatFailsForFiveDaysIsDisabled(t *testing.T) {
	n, h := newRig(t).breakerNode(time.Hour)
	failing, idle := n.patient("http://127.0.0.1:1/", 1), n.patient("http://127.0.0.1:1/", 1)
	n.refresh()
	n.fail(failing, 5)
	n.fail(idle, 1)
	n.tick(h)
	// One failed over and over for six days, the other once, six days ago.
	n.exec("update destination_health set failing_since = now() - interval '6 days'")
	n.exec("update destination_health set last_failure_at = failing_since where destination_id = $1", idle)
	h.tidied = time.Time{}
	n.tick(h)
	const disabled = "select count(*) from destinations where destination_id = $1 and state = 'disabled' and disable_reason = $2 and state_detail like '%resume it; the last one: refused'"
	if got := n.count(disabled, failing, 2); got != 1 {
		t.Error("it is not disabled as failing, with the last diagnosis")
	}
	if got := n.count("select count(*) from destinations where state = 'enabled'"); got != 1 {
		t.Error("the one without attempts was disabled too")
	}
	if got := n.count("select count(*) from operational_events where kind = 'destination_disabled' and destination_id = $1", failing); got != 1 {
		t.Errorf("%d events say so, want 1", got)
	}
}

// A node that failed writes later than one that succeeded after that, or in the same microsecond: the database tells none shorter.
func TestFailuresBeforeAnothersSuccessAreNotInARow(t *testing.T) {
	for name, lead := range map[string]time.Duration{"before": time.Microsecond, "in its microsecond": 0} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			first, firstHolder := r.breakerNode(time.Hour)
			second, secondHolder := r.breakerNode(time.Hour)
			destination := r.destination("http://127.0.0.1:1/", 1)
			first.refresh()
			second.refresh()
			first.fail(destination, 2)
			second.dispatcher.health.note(second.routes.Snapshot().Destination(destination), &ledger.Attempt{
				ID: id.New(), Outcome: leafv1.Outcome_OUTCOME_SUCCEEDED, StatusCode: 200, StartedAt: time.Now(),
			})
			failed := &first.dispatcher.health.find(destination).figures
			failed.failureAt = second.dispatcher.health.find(destination).figures.successAt.Add(-lead)
			failed.failingSince = failed.failureAt
			second.tick(secondHolder)
			first.tick(firstHolder)
			if got := r.count("select count(*) from destination_health where consecutive_failures = 0 and failing_since is null and last_failure_id is not null"); got != 1 {
				t.Error("what failed before the success still counts")
			}
		})
	}
}

// A dead destination costs the others nothing: theirs all arrive, and it gets five requests however much waits for it.
func TestDeadDestinationLeavesTheOthersAlone(t *testing.T) {
	n, h := newRig(t).breakerNode(time.Hour)
	dead, healthy := new(flaky), new(flaky)
	dead.broken.Store(true)
	deadID, healthyID := n.patient(newSink(t, dead.ServeHTTP).URL, 1), n.patient(newSink(t, healthy.ServeHTTP).URL, 8)
	n.refresh()
	n.backlog(deadID, 20_000)
	for i := range 100 {
		n.due(n.event(fmt.Sprint(i)), healthyID, 0, 0, uuid.Nil)
	}
	eventually(t, "the healthy destination has its deliveries", func() bool {
		n.step(h)
		return healthy.requests.Load() == 100 && n.count("select count(*) from delivery_queue where destination_id = $1", healthyID) == 0
	})
	eventually(t, "the backlog is out of the way", func() bool {
		n.step(h)
		return n.count(dueRows) == 0
	})
	if got := dead.requests.Load(); got != 5 {
		t.Errorf("%d requests to the dead destination, want 5", got)
	}
	n.stop()
}

// A minute in which deliveries are under way and none has ended is written like any other.
func TestMinuteWithoutAnAnswerIsWritten(t *testing.T) {
	n, h := newRig(t).breakerNode(time.Hour)
	destination := n.patient(newSink(t, new(counter).ServeHTTP).URL, 1)
	n.refresh()
	var traffic writtenTraffic
	traffic.NodeID = h.dispatcher.nodeID
	traffic.take(h.health.account(n.tenant, destination), 3, time.Now())
	if err := h.db.WriteTraffic(t.Context(), h.db.Engine(), traffic.WriteTrafficParams); err != nil {
		t.Fatal(err)
	}
	if got := n.count("select sum(in_flight) from destination_traffic where destination_id = $1", destination); got != 3 {
		t.Errorf("%d deliveries are under way, want 3", got)
	}
	n.stop()
}

func TestSignals(t *testing.T) {
	policy := route.RetryPolicy{FatalStatuses: []int{422}}
	for status, want := range map[int]signal{500: badSignal, 404: badSignal, 302: badSignal, 0: badSignal, 429: noSignal, 410: noSignal, 422: goodSignal} {
		if got := signalOf(policy, &ledger.Attempt{Outcome: leafv1.Outcome_OUTCOME_FAILED, StatusCode: status}); got != want {
			t.Errorf("status %d: signal %d, want %d", status, got, want)
		}
	}
}

func TestDurationsKeepTheirOrderToAnEighth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		took := time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "took"))
		var d, read Durations
		d.add(took)
		read.Merge(d.append(nil))
		if got := read.Below(0.5); got <= took || got > max(durationUnit, took+took/8+durationUnit/8) {
			t.Errorf("%v is counted as below %v", took, got)
		}
	})
	var d Durations
	for i := range 100 {
		d.add(time.Duration(i+1) * time.Millisecond)
	}
	if p50, p99 := d.Below(0.5), d.Below(0.99); p50 < 50*time.Millisecond || p50 > 57*time.Millisecond || p99 < 99*time.Millisecond || p99 > 112*time.Millisecond {
		t.Errorf("p50 %v, p99 %v", p50, p99)
	}
}
