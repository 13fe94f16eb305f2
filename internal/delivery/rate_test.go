package delivery

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestPaceGivesItsRateAndLittleMoreAtOnce(t *testing.T) {
	for _, interval := range []time.Duration{10 * time.Microsecond, time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond, time.Second, 3 * time.Second} {
		var p pace
		began := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
		span := 10_000 * interval
		var taken []time.Time
		for now := began; now.Before(began.Add(span)); {
			wait := p.take(now, interval)
			if wait < 0 {
				t.Fatalf("interval %v: wait %v", interval, wait)
			}
			if wait == 0 {
				taken = append(taken, now)
			}
			now = now.Add(wait)
		}
		atOnce := max(1, int(burstTime/interval))
		if want := int(span / interval); len(taken) < want || len(taken) > want+atOnce {
			t.Errorf("interval %v: %d tokens in %v, want %d and at most %d more", interval, len(taken), span, want, atOnce)
		}
		for i := range taken[1:] { // of any length: spans that begin with the first
			if got, least := taken[i+1].Sub(began), time.Duration(i+1)*interval-max(0, burstTime-interval); got < least {
				t.Fatalf("interval %v: %d tokens within %v", interval, i+2, got)
			}
		}
		if p.take(began.Add(span+time.Hour), interval) != 0 {
			t.Errorf("interval %v: no token after a pause", interval)
		}
	}
}

// clock is a sink that remembers when each request came.
type clock struct {
	mu   sync.Mutex
	came []time.Time
}

func (c *clock) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.came = append(c.came, time.Now())
}

func (c *clock) requests() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]time.Time(nil), c.came...)
}

// limit sets a destination's rate.
func (r *rig) limit(destination uuid.UUID, ratePerSecond int) {
	r.t.Helper()
	r.exec(`update destinations set rate_per_second = $2 where destination_id = $1`, destination, ratePerSecond)
}

func TestLaneKeepsToItsRateWithoutAWorkerAJob(t *testing.T) {
	const rate, jobs = 40, 60
	n := newRig(t).node()
	sink := new(clock)
	destination := n.destination(newSink(t, sink.ServeHTTP).URL, 64)
	n.limit(destination, rate)
	n.refresh()
	began := time.Now()
	for i := range jobs {
		n.hold(n.leased(n.event(fmt.Sprint(i)), destination, time.Now().Add(DefaultLease)))
	}
	if busy := n.dispatcher.lane(destination).inFlight.Load(); busy > 10 {
		t.Errorf("%d workers are busy while the rate allows %d attempts a second", busy, rate)
	}
	n.await(0, liveRows)
	came := sink.requests()
	if len(came) != jobs {
		t.Fatalf("%d requests for %d jobs", len(came), jobs)
	}
	atOnce := rate * int(burstTime) / int(time.Second)
	if took, least := came[jobs-1].Sub(began), time.Second*time.Duration(jobs-1-atOnce)/rate; took < least {
		t.Errorf("%d attempts took %v at %d a second, want %v or more", jobs, took, rate, least)
	}
	n.stop()
}

func TestRateAndInFlightAreSharedByTheNodes(t *testing.T) {
	n := newRig(t).node()
	d := n.dispatcher
	limited := newDestination(t, "http://127.0.0.1:1/")
	limited.MaxInFlight, limited.RatePerSecond = 10, 100
	for nodes, want := range map[int]struct {
		inFlight int
		interval time.Duration
	}{0: {10, 10 * time.Millisecond}, 1: {10, 10 * time.Millisecond}, 3: {4, 30 * time.Millisecond}, 20: {1, 200 * time.Millisecond}, 1000: {1, 10 * time.Second}} {
		d.SetNodes(nodes)
		if got := d.inFlightShare(limited); got != want.inFlight {
			t.Errorf("%d nodes: %d in flight, want %d", nodes, got, want.inFlight)
		}
		if got := d.interval(limited); got != want.interval {
			t.Errorf("%d nodes: an attempt each %v, want %v", nodes, got, want.interval)
		}
		if d.laneRoom(limited, true) < 1 || d.laneRoom(limited, false) < 1 {
			t.Errorf("%d nodes: a node gets nothing", nodes)
		}
	}
}

func TestNoMoreIsReservedThanTheRateSendsSoon(t *testing.T) {
	n := newRig(t).node()
	destination := newDestination(t, "http://127.0.0.1:1/")
	destination.RatePerSecond = 5
	reserved := 0
	for n.dispatcher.Reserve(destination, 1) {
		reserved++
	}
	if want := 5 * int(maxAheadNew/time.Second); reserved != want {
		t.Errorf("%d deliveries are reserved at 5 a second, want %d", reserved, want)
	}
	if n.dispatcher.laneRoom(destination, false) <= 0 {
		t.Error("new deliveries leave no room for what waits in the queue")
	}
	// What is in flight does not wait: a slow destination is still sent to at its rate.
	n.dispatcher.lane(destination.ID).inFlight.Add(3)
	for range 3 {
		if !n.dispatcher.Reserve(destination, 1) {
			t.Fatal("deliveries in flight count as waiting")
		}
	}
	if n.dispatcher.Reserve(destination, 1) {
		t.Error("too many are reserved")
	}
}

func TestBacklogBeyondTheRateStaysInTheQueueAndAllOfItArrives(t *testing.T) {
	const rate, backlog = 50, 400
	n := newRig(t).node()
	sink, other := new(clock), new(counter)
	limited, healthy := n.destination(newSink(t, sink.ServeHTTP).URL, 64), n.destination(newSink(t, other.ServeHTTP).URL, 8)
	n.limit(limited, rate)
	n.refresh()
	n.backlog(limited, backlog)
	if got := n.claim(); got != backlog {
		t.Fatalf("claimed %d rows, want all %d that are due", got, backlog)
	}
	ahead := rate * int(maxAheadClaimed/time.Second)
	if got := n.dispatcher.held.Load(); got > int64(ahead) {
		t.Errorf("%d deliveries are in memory, want at most the %d of %v", got, ahead, maxAheadClaimed)
	}
	if got := n.count("select count(*) from delivery_queue where due_at = $1 and lease_owner is null", HeldUntil(limited)); got != backlog-ahead {
		t.Errorf("%d rows are put off, want the other %d", got, backlog-ahead)
	}
	if got := n.claim(); got != 0 {
		t.Errorf("claimed %d rows although the lane is full", got)
	}
	event := n.event("{}")
	n.due(event, healthy, 0, 0, uuid.Nil)
	if got := n.claim(); got != 1 {
		t.Errorf("claimed %d rows, want that of the other destination", got)
	}
	stop, h := n.run(), n.holder()
	eventually(t, "all is delivered", func() bool {
		n.tick(h)
		time.Sleep(holdInterval / 5)
		return n.count(liveRows) == 0
	})
	stop()
	came := sink.requests()
	if len(came) != backlog {
		t.Fatalf("%d requests for %d deliveries", len(came), backlog)
	}
	most := rate + rate*int(burstTime)/int(time.Second) + rate/10 // requests do not arrive as evenly as they were sent
	for i := most; i < len(came); i++ {
		if span := came[i].Sub(came[i-most]); span < time.Second {
			t.Fatalf("%d requests within %v at %d a second", most+1, span, rate)
		}
	}
}

// What other nodes may be sooner for goes back while it can still be sent.
func TestJobsWhoseTurnComesAfterTheirLeaseGoBackEarly(t *testing.T) {
	n := newRig(t).node()
	sink := new(clock)
	destination := n.destination(newSink(t, sink.ServeHTTP).URL, 64)
	n.limit(destination, 10)
	n.refresh()
	needed := n.routes.Snapshot().Destination(destination).Timeout + sendMargin
	for i := range 20 {
		n.hold(n.leased(n.event(fmt.Sprint(i)), destination, time.Now().Add(needed+time.Second)))
	}
	began := time.Now()
	eventually(t, "those beyond a second's rate are given back", func() bool {
		return n.count("select count(*) from delivery_queue where lease_owner is null and due_at <= now()") >= 8
	})
	if took := time.Since(began); took > 900*time.Millisecond {
		t.Errorf("given back only after %v", took)
	}
	n.stop()
	if got := len(sink.requests()) + n.count(liveRows); got < 20 {
		t.Errorf("%d deliveries are done or queued, want 20", got)
	}
}

func TestStopDoesNotWaitForTheRate(t *testing.T) {
	n := newRig(t).node()
	sink := new(clock)
	destination := n.destination(newSink(t, sink.ServeHTTP).URL, 64)
	n.limit(destination, 1)
	n.refresh()
	for range 2 {
		n.hold(n.leased(n.event("{}"), destination, time.Now().Add(DefaultLease)))
	}
	n.await(1, liveRows)
	n.stop()
	if got := n.count("select count(*) from delivery_queue where lease_owner is null and due_at <= now()"); got != 1 {
		t.Errorf("%d deliveries are given back, want the one that waited", got)
	}
	if got := n.dispatcher.held.Load(); got != 0 {
		t.Errorf("%d jobs are held after the stop", got)
	}
}

func TestHeartbeatCountsLiveNodesThatDeliver(t *testing.T) {
	r := newRig(t)
	for i, row := range []struct {
		silent string
		role   string
	}{{"0 s", "deliver"}, {"0 s", "ingest"}, {"1 minute", "deliver"}} {
		r.exec(`insert into nodes (node_id, name, version, roles, heartbeat_at) values ($1, $2, '', array[$3], now() - $4::text::interval)`,
			uuid.New(), fmt.Sprint(i), row.role, row.silent)
	}
	self := uuid.New()
	for range 2 {
		nodes, err := r.beat(self)
		if err != nil {
			t.Fatal(err)
		}
		if nodes != 2 {
			t.Errorf("%d nodes are alive, want 2", nodes)
		}
	}
}
