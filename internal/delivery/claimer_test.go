package delivery

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
)

// counter is a sink that counts by event and remembers the attempt numbers.
type counter struct {
	mu   sync.Mutex
	seen map[string][]string
}

func (c *counter) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil {
		c.seen = make(map[string][]string)
	}
	event := r.Header.Get("Webhook-Id")
	c.seen[event] = append(c.seen[event], r.Header.Get("Kapsel-Attempt"))
}

func (c *counter) attempts(event uuid.UUID) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[id.Event.Text(event)]
}

// run runs the claimer; the function it returns ends it and what it sent.
func (n *node) run() (stop func()) {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n.claimer.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
		n.stop()
	}
}

func (n *node) claim() int {
	n.t.Helper()
	claimed, err := n.claimer.claim(n.t.Context())
	if err != nil {
		n.t.Fatalf("claim: %v", err)
	}
	return claimed
}

func TestRetryIsSentWhenItIsDueAndNotBefore(t *testing.T) {
	n := newRig(t).node()
	sink := new(counter)
	destination := n.destination(newSink(t, sink.ServeHTTP).URL, 8)
	n.refresh()
	event := n.event("{}")
	began := time.Now()
	const wait = 400 * time.Millisecond
	n.due(event, destination, 1, wait, uuid.Nil)
	stop := n.run()
	n.await(0, liveRows)
	if took := time.Since(began); took < wait {
		t.Errorf("sent after %v, due after %v", took, wait)
	}
	stop()
	if got := sink.attempts(event.ID); len(got) != 1 || got[0] != "2" {
		t.Errorf("attempts that arrived: %v", got)
	}
	if leaves := n.leaves(); len(leaves) != 1 || leaves[0].GetAttempt().GetNumber() != 2 {
		t.Errorf("leaves: %v", leaves)
	}
}

// A claim that is cut off, at any moment, may be committed all the same. Nothing stays leased to a node that does not send it.
func TestClaimThatIsCutOffLeavesNoLease(t *testing.T) {
	n := newRig(t).node()
	sink := new(counter)
	destination := n.destination(newSink(t, sink.ServeHTTP).URL, 8)
	n.refresh()
	for i := range 200 {
		n.due(n.event("{}"), destination, 0, -time.Second, uuid.Nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%40)*100*time.Microsecond)
		n.claimer.claim(ctx)
		cancel()
	}
	stop := n.run()
	n.await(0, liveRows)
	stop()
	if leaves := n.leaves(); len(leaves) != 200 {
		t.Errorf("%d leaves, want 200", len(leaves))
	}
}

// The attempt of a lost node may have reached the network: it is on record before the next one is made.
func TestLostNodesAttemptIsRecordedFirst(t *testing.T) {
	for _, state := range []string{"enabled", "deleted", "paused"} {
		t.Run(state, func(t *testing.T) {
			n := newRig(t).node()
			sink := new(counter)
			url := newSink(t, sink.ServeHTTP).URL
			destination := n.destination(url, 8)
			switch state {
			case "deleted":
				n.exec(`delete from destinations`)
				url = ""
			case "paused":
				n.exec(`update destinations set state = 'paused'`)
			}
			n.refresh()
			event, lost := n.event("{}"), id.New()
			deliveryID := n.due(event, destination, 0, -time.Second, lost)
			stop := n.run()
			want := 2
			if state == "paused" {
				want = 1
			}
			n.await(want, "select count(*) from attempts")
			stop()
			leaves := n.leaves()
			unknown := leaves[0].GetAttempt()
			if unknown.GetOutcome() != leafv1.Outcome_OUTCOME_UNKNOWN || unknown.GetFailure() != leafv1.Failure_FAILURE_WORKER_LOST ||
				unknown.GetNumber() != 1 || uuid.UUID(unknown.GetNodeId()) != lost || uuid.UUID(unknown.GetDeliveryId()) != deliveryID ||
				unknown.GetUrl() != url || unknown.GetStartedAt() != nil {
				t.Errorf("first leaf: %v", leaves[0])
			}
			switch state {
			case "enabled":
				if second := leaves[1].GetAttempt(); second.GetNumber() != 2 || second.GetOutcome() != leafv1.Outcome_OUTCOME_SUCCEEDED ||
					uuid.UUID(second.GetNodeId()) != n.id {
					t.Errorf("second leaf: %v", leaves[1])
				}
				if got := sink.attempts(event.ID); len(got) != 1 || got[0] != "2" {
					t.Errorf("attempts that arrived: %v", got)
				}
				n.await(0, liveRows)
			case "deleted":
				letter := leaves[1].GetDeadLetter()
				if letter.GetReason() != leafv1.DeadLetterReason_DEAD_LETTER_REASON_DESTINATION_GONE || letter.GetAttempts() != 1 {
					t.Errorf("second leaf: %v", leaves[1])
				}
				n.await(1, "select count(*) from dead_letters where attempts = 1")
				n.await(0, liveRows)
			case "paused":
				n.await(1, "select count(*) from delivery_queue where attempts = 1 and lease_owner is null and lost_owner is null")
				if got := sink.attempts(event.ID); got != nil {
					t.Errorf("a paused destination got %v", got)
				}
			}
		})
	}
}

// The node that would have recorded a lost node's attempt was lost before it did.
func TestLostAttemptStaysItsNodes(t *testing.T) {
	n := newRig(t).node()
	destination := n.destination("http://127.0.0.1:1/", 8)
	n.setState(destination, "paused")
	n.refresh()
	lost := id.New()
	deliveryID := n.due(n.event("{}"), destination, 0, -time.Second, id.New())
	n.exec(`update delivery_queue set lost_owner = $2 where delivery_id = $1`, deliveryID, lost)
	n.claim()
	n.await(1, "select count(*) from delivery_queue where attempts = 1 and lost_owner is null")
	n.stop()
	leaves := n.leaves()
	if a := leaves[0].GetAttempt(); len(leaves) != 1 || uuid.UUID(a.GetNodeId()) != lost {
		t.Errorf("%d leaves, the first of node %x: want one, of %s", len(leaves), a.GetNodeId(), lost)
	}
}

// A node that was cut off was taken for dead, and has claimed one of its own deliveries again before it came to send it the
// first time. What it gives back then is not the new lease.
func TestOldLeaseGivenBackLeavesTheNewOneAlone(t *testing.T) {
	n := newRig(t).node()
	destination := n.destination("http://127.0.0.1:1/", 8)
	n.refresh()
	old := n.leased(n.event("{}"), destination, time.Now())
	n.exec(`update delivery_queue set attempts = 1 where delivery_id = $1`, old.DeliveryID)
	n.hold(old)
	eventually(t, "it is given back", func() bool { return n.dispatcher.held.Load() == 0 })
	if got := n.count("select count(*) from delivery_queue where attempts = 1 and lease_owner = $1 and due_at > now()", n.id); got != 1 {
		t.Error("the next attempt has no lease any more")
	}
	n.stop()
}

func TestTwoNodesNeverTakeTheSameRow(t *testing.T) {
	r := newRig(t)
	sink := new(counter)
	destination := r.destination(newSink(t, sink.ServeHTTP).URL, 64)
	events := make([]uuid.UUID, 400)
	for i := range events {
		event := r.event(fmt.Sprint(i))
		events[i] = event.ID
		r.due(event, destination, 0, 0, uuid.Nil)
	}
	var stops []func()
	for range 3 {
		stops = append(stops, r.node().run())
	}
	r.await(0, liveRows)
	for _, stop := range stops {
		stop()
	}
	for _, event := range events {
		if got := sink.attempts(event); len(got) != 1 {
			t.Errorf("event %s arrived %d times", event, len(got))
		}
	}
	if got := len(r.leaves()); got != len(events) {
		t.Errorf("%d leaves, want %d", got, len(events))
	}
}

func TestHeldDestinationsAreNotClaimed(t *testing.T) {
	n := newRig(t).node()
	sink := new(counter)
	url := newSink(t, sink.ServeHTTP).URL
	paused, enabled := n.destination(url, 8), n.destination(url, 8)
	n.exec(`update destinations set state = 'paused' where destination_id = $1`, paused)
	n.refresh()
	held, sent := n.event("held"), n.event("sent")
	n.due(held, paused, 0, -time.Hour, uuid.Nil)
	n.due(sent, enabled, 0, 0, uuid.Nil)
	stop := n.run()
	n.await(1, liveRows)
	time.Sleep(3 * claimInterval)
	if got := sink.attempts(held.ID); got != nil {
		t.Errorf("a paused destination got attempt %v", got)
	}
	n.exec(`update destinations set state = 'enabled'`)
	n.refresh()
	n.await(0, liveRows)
	stop()
	if got := sink.attempts(held.ID); len(got) != 1 || len(sink.attempts(sent.ID)) != 1 {
		t.Errorf("after the pause: %v, the other one %v", got, sink.attempts(sent.ID))
	}
}

// The snapshot may be older than a destination that another node took an event for.
func TestNewDestinationIsNotTakenForDeleted(t *testing.T) {
	n := newRig(t).node()
	sink := new(counter)
	url := newSink(t, sink.ServeHTTP).URL
	good, paused, broken := n.destination(url, 8), n.destination(url, 8), n.destination(url, 8)
	n.exec(`update destinations set state = 'paused' where destination_id = $1`, paused)
	n.exec(`update destination_secrets set ciphertext = '' where destination_id = $1`, broken)
	event := n.event("{}")
	for _, destination := range []uuid.UUID{good, paused, broken} {
		n.due(event, destination, 0, 0, uuid.Nil)
	}
	if n.routes.Snapshot().Destination(good) != nil {
		t.Fatal("the snapshot is too new for this test")
	}
	stop := n.run()
	n.await(2, liveRows)
	n.await(0, "select count(*) from delivery_queue where lease_owner is not null")
	stop()
	if got := sink.attempts(event.ID); len(got) != 1 {
		t.Errorf("%d deliveries arrived, want 1", len(got))
	}
	if got := n.count("select count(*) from dead_letters"); got != 0 {
		t.Errorf("%d dead letters", got)
	}
}

func TestDeletedDestinationsDeliveriesBecomeDeadLetters(t *testing.T) {
	n := newRig(t).node()
	n.due(n.event("{}"), id.New(), 2, 0, uuid.Nil)
	stop := n.run()
	n.await(1, "select count(*) from dead_letters where attempts = 2 and reason = 4 and diagnosis <> ''")
	n.await(0, liveRows)
	stop()
	if leaves := n.leaves(); len(leaves) != 1 || leaves[0].GetDeadLetter().GetReason() != leafv1.DeadLetterReason_DEAD_LETTER_REASON_DESTINATION_GONE {
		t.Errorf("leaves: %v", leaves)
	}
}

func TestLoadedPayloadsAreBounded(t *testing.T) {
	r := newRig(t)
	var tenants, events []uuid.UUID
	for i := range 5 {
		events = append(events, r.event(strings.Repeat(fmt.Sprint(i), 100)).ID)
		tenants = append(tenants, r.tenant)
	}
	for maxBytes, want := range map[int64]int{0: 1, 99: 1, 100: 1, 199: 1, 200: 2, 450: 4, 500: 5, 1 << 40: 5} {
		rows, err := r.db.LoadEvents(t.Context(), r.db.Engine(), tenants, events, maxBytes)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) != want {
			t.Errorf("bound of %d bytes: %d events, want %d", maxBytes, len(rows), want)
		}
		for i, row := range rows {
			if row.EventID != events[i] {
				t.Errorf("bound of %d bytes: event %d is not the one that was asked for there", maxBytes, i)
			}
		}
	}
}

// What does not fit into memory goes back as it was, and none of it is forgotten.
func TestWhatDoesNotFitGoesBack(t *testing.T) {
	n := newRig(t).node()
	g := newGate()
	destination := n.destination(newSink(t, g.ServeHTTP).URL, 64)
	n.refresh()
	lost := id.New()
	for i := range 5 {
		n.due(n.event(strings.Repeat(fmt.Sprint(i), 1000)), destination, 0, time.Duration(i-20)*time.Second, uuid.Nil)
	}
	n.due(n.event(strings.Repeat("l", 1000)), destination, 0, -time.Second, lost)
	n.dispatcher.heldBytes.Add(maxHeldBytes - 2500)
	if got := n.claim(); got != 6 {
		t.Fatalf("claimed %d rows, want 6", got)
	}
	if got := n.dispatcher.held.Load(); got != 2 {
		t.Errorf("%d jobs are held, want 2", got)
	}
	n.await(4, "select count(*) from delivery_queue where lease_owner is null and due_at <= now()")
	n.await(1, "select count(*) from delivery_queue where lost_owner = $1", lost)
	n.dispatcher.heldBytes.Add(-1 << 20)
	close(g.open)
	stop := n.run()
	n.await(0, liveRows)
	stop()
	if got := n.count("select count(*) from attempts where outcome = 3"); got != 1 {
		t.Errorf("%d unknown attempts, want 1", got)
	}
}

func TestLeasesOfDeadNodesEndEarly(t *testing.T) {
	r := newRig(t)
	alive, dead, self := id.New(), id.New(), id.New()
	for _, node := range []uuid.UUID{alive, dead, self} {
		r.exec(`insert into nodes (node_id, name, version, roles, heartbeat_at) values ($1, '', '', '{}', now() - interval '1 minute')`, node)
		r.due(r.event("{}"), id.New(), 0, DefaultLease-time.Second, node)
	}
	r.exec(`update nodes set heartbeat_at = now() where node_id = $1`, alive)
	r.due(r.event("{}"), id.New(), 0, time.Hour, uuid.Nil)
	expired, err := r.db.ExpireLeasesOfDeadNodes(t.Context(), r.db.Engine(), DefaultLease.Seconds(), self, 30)
	if err != nil {
		t.Fatal(err)
	}
	if expired != 1 || r.count("select count(*) from delivery_queue where due_at <= now() and lease_owner = $1", dead) != 1 {
		t.Errorf("%d leases ended, want that of the dead node", expired)
	}
}
