package delivery

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

func orderKeyOf(text string) []byte {
	digest := sha256.Sum256([]byte(text))
	return digest[:16]
}

// ordered queues a delivery of a key as intake does, behind those that are there.
func (r *rig) ordered(destination uuid.UUID, key, body string) uuid.UUID {
	r.t.Helper()
	event, deliveryID := r.event(body), id.New()
	r.exec(`insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at, order_key, order_seq)
		values ($1, $2, $3, $4, $5, $6, $7, nextval('delivery_order'))`,
		r.tenant, deliveryID, event.ID, r.endpoint, destination, turnMoment, orderKeyOf(key))
	return deliveryID
}

// tape is a sink that writes down the bodies that it took, in order, and refuses some.
type tape struct {
	refuse func(body string) bool
	mu     sync.Mutex
	took   []string
}

func (s *tape) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if s.refuse != nil && s.refuse(string(body)) {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took = append(s.took, string(body))
}

func (s *tape) bodies() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.took)
}

// byKey are the events of a tape by their key, of bodies "key/number".
func byKey(bodies []string) map[string][]int {
	keys := make(map[string][]int)
	for _, body := range bodies {
		var key string
		var number int
		fmt.Sscanf(body, "%2s/%d", &key, &number)
		keys[key] = append(keys[key], number)
	}
	return keys
}

func TestEventsOfAKeyArriveInOrderFromTwoNodes(t *testing.T) {
	const keys, events = 20, 50
	r := newRig(t)
	sink := &tape{refuse: func(string) bool { return rand.IntN(10) == 0 }}
	destination := r.destination(newSink(t, sink.ServeHTTP).URL, 64)
	r.exec(`update destinations set retry_policy = '{"schedule":["0.02s"],"maxAttempts":50,"jitter":0}'`)
	one, other := r.node(), r.node()
	stops := []func(){one.run(), other.run()}
	for number := range events {
		for key := range keys {
			name := fmt.Sprintf("%02d", key)
			r.ordered(destination, name, fmt.Sprintf("%s/%d", name, number))
			node := []*node{one, other}[rand.IntN(2)]
			node.dispatcher.NoteTurn(destination, orderKeyOf(name))
		}
	}
	for deadline := time.Now().Add(2 * time.Minute); r.count(liveRows) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d deliveries are left", r.count(liveRows))
		}
	}
	for _, stop := range stops {
		stop()
	}
	for key, numbers := range byKey(sink.bodies()) {
		if len(numbers) != events || !slices.IsSorted(numbers) {
			t.Errorf("key %s arrived as %v", key, numbers)
		}
	}
	if got := len(sink.bodies()); got != keys*events {
		t.Errorf("%d of %d events arrived", got, keys*events)
	}
}

func TestFailedDeliveryHoldsUpItsOwnKeyOnlyUntilItIsGivenUp(t *testing.T) {
	n := newRig(t).node()
	sink := &tape{refuse: func(body string) bool { return body == "aa/0" }}
	destination := n.destination(newSink(t, sink.ServeHTTP).URL, 8)
	n.exec(`update destinations set retry_policy = '{"schedule":["1s"],"maxAttempts":2,"jitter":0}'`)
	n.refresh()
	stop := n.run()
	for number := range 3 {
		n.ordered(destination, "aa", fmt.Sprintf("aa/%d", number))
		n.ordered(destination, "bb", fmt.Sprintf("bb/%d", number))
	}
	n.due(n.event("cc/0"), destination, 0, 0, uuid.Nil)
	n.dispatcher.NoteTurn(destination, orderKeyOf("aa"))
	n.dispatcher.NoteTurn(destination, orderKeyOf("bb"))
	n.await(3, liveRows) // those of the failed one's key
	if took := byKey(sink.bodies()); len(took["aa"]) != 0 || !slices.Equal(took["bb"], []int{0, 1, 2}) || len(took["cc"]) != 1 {
		t.Errorf("while the first of a key fails: %v", took)
	}
	n.await(0, liveRows)
	stop()
	if took := byKey(sink.bodies()); !slices.Equal(took["aa"], []int{1, 2}) {
		t.Errorf("after it was given up: %v", took["aa"])
	}
	if got := n.count("select count(*) from dead_letters where attempts = 2"); got != 1 {
		t.Errorf("%d dead letters, want that of the first", got)
	}
}

// A node that commits or records, and is lost before it takes what is next, leaves keys that nobody has noted.
func TestKeysOfLostNodesGoOn(t *testing.T) {
	n := newRig(t).node()
	sink := new(tape)
	destination := n.destination(newSink(t, sink.ServeHTTP).URL, 8)
	n.refresh()
	lost := id.New()
	first := n.ordered(destination, "aa", "aa/0")
	for number := range 2 {
		n.ordered(destination, "aa", fmt.Sprintf("aa/%d", number+1))
		n.ordered(destination, "bb", fmt.Sprintf("bb/%d", number))
	}
	n.exec(`update delivery_queue set lease_owner = $2, due_at = now() - interval '1 s' where delivery_id = $1`, first, lost)
	stop := n.run()
	n.await(0, liveRows)
	stop()
	if took := byKey(sink.bodies()); !slices.Equal(took["aa"], []int{0, 1, 2}) || !slices.Equal(took["bb"], []int{0, 1}) {
		t.Errorf("arrived: %v", took)
	}
	if got := n.count("select count(*) from attempts where outcome = 3"); got != 1 {
		t.Errorf("%d unknown attempts, want that of the lost node", got)
	}
}

func TestOnlyTheFirstOfAKeyIsEverClaimed(t *testing.T) {
	n := newRig(t).node()
	destination := n.destination("http://127.0.0.1:1/", 8)
	n.refresh()
	first, second := n.ordered(destination, "aa", "0"), n.ordered(destination, "aa", "1")
	const leased = "select count(*) from delivery_queue where lease_owner is not null and delivery_id = $1"
	claim := func(what string, wantFirst, wantSecond int) {
		t.Helper()
		rows, err := n.db.ClaimDue(t.Context(), n.db.Engine(), store.ClaimDueParams{
			NodeID: n.id, LeaseSeconds: 60, MaxRows: 10, FullDestinationIds: []uuid.UUID{},
		})
		if err != nil {
			t.Fatal(err)
		}
		turns, err := n.db.ClaimTurns(t.Context(), n.db.Engine(), store.ClaimTurnsParams{
			NodeID: n.id, LeaseSeconds: 60, DestinationIds: []uuid.UUID{destination}, OrderKeys: [][]byte{orderKeyOf("aa")}, TurnMoment: turnMoment,
		})
		if err != nil {
			t.Fatal(err)
		}
		if n.count(leased, first) != wantFirst || n.count(leased, second) != wantSecond {
			t.Errorf("%s: claimed %d due rows and %d turns", what, len(rows), len(turns))
		}
	}
	n.exec(`update delivery_queue set due_at = now() where delivery_id = $1`, second) // as one that failed before the first was committed
	claim("the first waits for its turn", 1, 0)
	claim("the first is under way", 1, 0)
	n.exec(`update delivery_queue set lease_owner = null, attempts = 1, due_at = now() + interval '1 hour' where delivery_id = $1`, first)
	claim("the first waits for its retry", 0, 0)
	n.exec(`delete from delivery_queue where delivery_id = $1`, first)
	claim("the first is gone", 0, 1)
	// One that was committed late comes before it, and waits while it is under way.
	first = n.ordered(destination, "aa", "late")
	n.exec(`update delivery_queue set order_seq = 0 where delivery_id = $1`, first)
	claim("an earlier one was committed late", 0, 1)
}

// A user may wish for one that waits for its turn. It is sent no sooner, and nothing is overdue.
func TestWishForALaterDeliveryLeavesItWaiting(t *testing.T) {
	r := newRig(t)
	destination := r.destination("http://127.0.0.1:1/", 8)
	first, second := r.ordered(destination, "aa", "0"), r.ordered(destination, "aa", "1")
	r.exec(`update delivery_queue set attempts = 1, due_at = now() + interval '1 hour' where delivery_id = $1`, first)
	for _, deliveryID := range []uuid.UUID{first, second} {
		if err := r.db.MakeDue(t.Context(), r.db.Engine(), r.tenant, deliveryID); err != nil {
			t.Fatal(err)
		}
	}
	const due = "select count(*) from delivery_queue where delivery_id = $1 and due_at <= now()"
	if n, m := r.count(due, first), r.count(due, second); n != 1 || m != 0 {
		t.Errorf("due are %d of the first and %d of the second: want the first alone", n, m)
	}
}

func TestOrderedDeliveriesOfDestinationsThatGetNothingWait(t *testing.T) {
	n := newRig(t).node()
	sink := new(tape)
	destination := n.destination(newSink(t, sink.ServeHTTP).URL, 8)
	n.setState(destination, "paused")
	n.refresh()
	for number := range 3 {
		n.ordered(destination, "aa", fmt.Sprintf("aa/%d", number))
	}
	n.dispatcher.NoteTurn(destination, orderKeyOf("aa"))
	stop := n.run()
	time.Sleep(turnsInterval + 3*claimInterval)
	if got := n.count("select count(*) from delivery_queue where due_at = $1 and lease_owner is null", turnMoment); got != 3 {
		t.Errorf("%d of 3 wait", got)
	}
	n.setState(destination, "enabled")
	n.refresh()
	n.await(0, liveRows)
	stop()
	if took := byKey(sink.bodies()); !slices.Equal(took["aa"], []int{0, 1, 2}) {
		t.Errorf("after the pause: %v", took)
	}
}

func TestManyKeysAreLookedAtPageByPage(t *testing.T) {
	n := newRig(t).node()
	destination := n.destination("http://127.0.0.1:1/", 8)
	n.exec(`insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at, order_key, order_seq)
		select $1, gen_random_uuid(), $2, $3, $4, $5, decode(lpad(to_hex(i / 2), 32, '0'), 'hex'), i from generate_series(0, $6 - 1) i`,
		n.tenant, n.event("{}").ID, n.endpoint, destination, turnMoment, 2*(maxTurnKeys+10))
	n.setState(destination, "paused") // so that nothing is taken
	n.refresh()
	for _, want := range []bool{true, false, true} {
		n.claimer.looked = time.Time{}
		if err := n.claimer.lookForTurns(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := n.claimer.lookedAt != (turn{}); got != want {
			t.Errorf("the look ended before the last key: %v, want %v", got, want)
		}
	}
}
