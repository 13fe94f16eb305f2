package delivery

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/store"
)

func (r *rig) beat(node uuid.UUID) (int64, error) {
	alive, err := r.db.Heartbeat(r.t.Context(), r.db.Engine(), store.HeartbeatParams{
		NodeID: node, Roles: []string{"deliver"}, DeadAfterSeconds: 5,
	})
	return alive.Delivering, err
}

// keepHolding runs a holder; the function it returns ends it.
func (n *node) keepHolding() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	h := n.holder()
	go func() {
		defer close(done)
		h.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// A slow destination is not dead: its lane is full all the time, and its backlog comes before everybody else's.
func TestBacklogOfSlowDestinationIsOutOfTheClaimsWay(t *testing.T) {
	const backlog = 100_000
	n := newRig(t).node()
	g, sink := newGate(), new(counter)
	slow, healthy := n.destination(newSink(t, g.ServeHTTP).URL, 8), n.destination(newSink(t, sink.ServeHTTP).URL, 8)
	n.refresh()
	n.backlog(slow, backlog)
	stopClaimer, stopHolder := n.run(), n.keepHolding()
	eventually(t, "all but a few of its due rows are put off", func() bool { return n.count(dueRows) <= overflowKept })
	if held := n.dispatcher.held.Load(); held > maxHeldLane+2*maxClaim {
		t.Errorf("%d deliveries are in memory", held)
	}
	for i := range 20 {
		event := n.event(fmt.Sprint(i))
		began := time.Now()
		n.due(event, healthy, 0, 0, uuid.Nil)
		eventually(t, "the healthy destination's delivery", func() bool { return len(sink.attempts(event.ID)) == 1 })
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("the healthy destination waited %v", took)
		}
	}
	// It comes back as the lane gets room.
	before := g.arrived.Load()
	close(g.open)
	eventually(t, "what was put off is sent", func() bool { return g.arrived.Load() > before+maxHeldLane+maxClaim+overflowKept })
	stopHolder()
	stopClaimer()
	n.await(backlog-int(g.arrived.Load()), "select count(*) from delivery_queue where destination_id = $1", slow)
}

func TestFewRowsOfFullLaneStayDue(t *testing.T) {
	n := newRig(t).node()
	slow := n.destination("http://127.0.0.1:1/", 8)
	n.refresh()
	n.backlog(slow, overflowKept+10)
	n.exec(`update delivery_queue set due_at = now() - interval '2 hours' where ctid = any(array(select ctid from delivery_queue limit $1))`, overflowKept)
	n.dispatcher.lane(slow).held.Add(maxHeldLane + maxClaim)
	h := n.holder()
	n.tick(h)
	if got := n.count("select count(*) from delivery_queue where due_at < now() - interval '90 minutes'"); got != overflowKept {
		t.Errorf("%d of the %d oldest rows are still due", got, overflowKept)
	}
	if got := n.count(dueRows); got != overflowKept {
		t.Errorf("%d rows are due, want %d", got, overflowKept)
	}
	n.dispatcher.lane(slow).held.Add(-5)
	n.tick(h)
	if got := n.count(dueRows); got != overflowKept+5 {
		t.Errorf("%d rows are due, want %d and those that the lane has room for", got, overflowKept)
	}
}

// held makes jobs of one event that this node holds, in one statement.
func (n *node) leasedMany(destination uuid.UUID, jobs int) []Job {
	n.t.Helper()
	event := n.event("{}")
	deliveryIDs := make([]uuid.UUID, jobs)
	made := make([]Job, jobs)
	for i := range deliveryIDs {
		deliveryIDs[i] = id.New()
		made[i] = Job{
			Duty:        ledger.Duty{Event: event, DeliveryID: deliveryIDs[i], DestinationID: destination},
			Destination: n.routes.Snapshot().Destination(destination), LeaseEnds: time.Now().Add(DefaultLease),
		}
	}
	n.exec(`insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at, lease_owner)
		select $1, unnest($2::uuid[]), $3, $4, $5, now() + interval '75 s', $6`,
		n.tenant, deliveryIDs, event.ID, n.endpoint, destination, n.id)
	return made
}

func TestThousandDeliveriesAreInFlightAtOnce(t *testing.T) {
	for name, lanes := range map[string]struct{ destinations, inFlight int }{
		"sixteen destinations": {16, 64}, "one destination": {1, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			n := newRig(t).node()
			var inside, peak, arrived atomic.Int64
			url := newSink(t, func(_ http.ResponseWriter, _ *http.Request) {
				arrived.Add(1)
				now := inside.Add(1)
				for p := peak.Load(); now > p && !peak.CompareAndSwap(p, now); p = peak.Load() {
				}
				time.Sleep(time.Second)
				inside.Add(-1)
			}).URL
			var jobs []Job
			destinations := make([]uuid.UUID, lanes.destinations)
			for i := range destinations {
				destinations[i] = n.destination(url, lanes.inFlight)
			}
			n.refresh()
			for _, destination := range destinations {
				jobs = append(jobs, n.leasedMany(destination, 2*lanes.inFlight)...)
			}
			for _, job := range jobs {
				n.hold(job)
			}
			n.await(0, liveRows)
			if got := arrived.Load(); got != int64(len(jobs)) {
				t.Errorf("%d requests for %d deliveries", got, len(jobs))
			}
			if got, want := peak.Load(), int64(lanes.destinations*lanes.inFlight); got > want || got < 1000*95/100 {
				t.Errorf("%d requests at once, want %d", got, want)
			}
			n.stop()
		})
	}
}

func TestWorkersWaitForMoreAndEndAfterAWhile(t *testing.T) {
	n := newRig(t).node()
	g := newGate()
	destination := n.destination(newSink(t, g.ServeHTTP).URL, 5)
	n.refresh()
	parked := func() int {
		l := n.dispatcher.lane(destination)
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.parked)
	}
	send := func(jobs int) {
		for _, job := range n.leasedMany(destination, jobs) {
			n.hold(job)
		}
		eventually(t, "they are in flight", func() bool { return g.inside.Load() == int64(jobs) })
		for range jobs {
			g.open <- struct{}{}
		}
	}
	send(5)
	eventually(t, "all workers wait", func() bool { return parked() == 5 })
	send(2)
	eventually(t, "the two wait again", func() bool { return parked() == 5 })
	eventually(t, "all have ended", func() bool { return parked() == 0 })
	n.await(0, liveRows)
	done := make(chan struct{})
	go func() {
		n.dispatcher.busy.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("workers have not ended")
	}
	n.stop()
}
