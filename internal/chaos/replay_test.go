package chaos

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

// mendableSink refuses all until it is mended, and counts what it takes by event. It refuses by a status that is fatal to the
// delivery, and so opens no breaker.
type mendableSink struct {
	mended atomic.Bool
	mu     sync.Mutex
	taken  map[string]int
}

func (s *mendableSink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return
	}
	if !s.mended.Load() {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.taken[r.Header.Get("Webhook-Id")]++
}

// Thousands of dead letters are replayed by two nodes, in two replays that overlap, and each arrives once.
func TestReplayedDeadLettersArriveOnce(t *testing.T) {
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	first, second := cluster.Start(t, "a"), cluster.Start(t, "b")
	sink := &mendableSink{taken: make(map[string]int)}
	server := httptest.NewServer(sink)
	defer server.Close()
	route := first.API().CreateRouteWith(t, server.URL, object{"retryPolicy": object{"fatalStatuses": []int{http.StatusUnprocessableEntity}}})
	time.Sleep(inForcePatience)
	load := Load{
		IngestURLs: []string{first.IngestURL(route), second.IngestURL(route)}, Secret: route.Secret,
		Count: scaled(2500), PerSecond: scaled(1000), Conns: 16,
	}
	posted := load.Start(ctx, r).Wait(t)
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	t.Logf("%d dead letters", len(posted))

	command := func(node *Node, args ...string) string {
		t.Helper()
		code, stdout, stderr := Run(t, append(args, "--url", node.URL, "--api-key", cluster.APIKey)...)
		if code != 0 {
			t.Fatalf("kapsel %s: exit %d: %s", strings.Join(args, " "), code, stderr)
		}
		return stdout
	}
	if got, want := command(first, "replay", "--reason", "fatal-status", "--dry-run"), strconv.Itoa(len(posted))+" dead letters match\n"; got != want {
		t.Fatalf("the dry run says %q, want %q", got, want)
	}
	if lines := strings.Count(command(first, "deadletters", "--failure", "status", "--limit", "1500"), "\n"); lines != 1+min(1500, len(posted)) {
		t.Errorf("%d lines of dead letters, want %d and a heading", lines, min(1500, len(posted)))
	}

	sink.mended.Store(true)
	began := time.Now()
	var overlapping struct{ Replay struct{ ID string } }
	first.API().Call(t, "DeliveryService/ReplayDeadLetters", object{"filter": object{}, "ratePerSecond": 2000}, &overlapping)
	if got := command(second, "replay", "--destination", route.DestinationID, "--rate", "2000", "--wait"); !strings.Contains(got, " completed: ") {
		t.Errorf("the replay ended with %q", got)
	}
	command(first, "replay", overlapping.Replay.ID, "--wait")
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	took := time.Since(began)

	sink.mu.Lock()
	defer sink.mu.Unlock()
	for _, p := range posted {
		if n := sink.taken[p.EventID]; n != 1 {
			t.Errorf("event %s arrived %d times, want once", p.EventID, n)
		}
	}
	if len(sink.taken) != len(posted) {
		t.Errorf("%d events arrived, want %d", len(sink.taken), len(posted))
	}
	if got := command(first, "replay", "--all", "--dry-run"); got != "0 dead letters match\n" {
		t.Errorf("after the replay a dry run says %q", got)
	}
	CheckFsck(t, cluster)
	t.Logf("%d dead letters delivered %v after the beginning of their replay", len(posted), took.Round(time.Millisecond))
}

// A node is killed while it sends deliveries of which some were cancelled in the meantime. Each has its leaf, and those that
// were cancelled are not sent again.
func TestCancelledDeliveriesOfAKilledNodeHaveTheirLeaf(t *testing.T) {
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	first, second := cluster.Start(t, "a"), cluster.Start(t, "b")
	sink := NewSink(t)
	sink.SetDelay(15 * time.Second)
	route := first.CreateRoute(t, sink.URL)
	const count = 20
	load := Load{IngestURLs: []string{first.IngestURL(route)}, Secret: route.Secret, Count: count, PerSecond: 1000, Conns: 4}
	posted := load.Start(ctx, r).Wait(t)
	sink.AwaitAll(t, posted, startPatience)

	type list struct {
		Deliveries    []struct{ ID, EventID, State string }
		NextPageToken string
	}
	var inFlight list
	second.API().Call(t, "DeliveryService/ListDeliveries", object{"states": []string{"DELIVERY_STATE_IN_FLIGHT"}, "pageSize": 1000}, &inFlight)
	if len(inFlight.Deliveries) != count {
		t.Fatalf("%d deliveries are in flight, want %d", len(inFlight.Deliveries), count)
	}
	cancelled := make(map[string]bool)
	for _, d := range inFlight.Deliveries[:count/2] {
		second.API().Call(t, "DeliveryService/CancelDelivery", object{"deliveryId": d.ID, "reason": "enough"}, nil)
		cancelled[d.EventID] = true
	}
	first.Kill()
	killed := time.Now()
	sink.SetDelay(0)
	AwaitSettled(t, cluster.DatabaseURL(), takeoverTime)
	var ledger *Ledger
	for {
		ledger = ReadLedger(t, cluster.DatabaseURL())
		if unknownIn(ledger) == count {
			break
		}
		if time.Since(killed) > takeoverTime {
			t.Fatalf("%d attempts of unknown end after %v, want %d", unknownIn(ledger), takeoverTime, count)
		}
		time.Sleep(100 * time.Millisecond)
	}
	took := time.Since(killed)

	arrivals := sink.Arrivals()
	for _, p := range posted {
		attempts, arrived := ledger.Attempts[p.EventID], arrivals[p.EventID].Count
		if cancelled[p.EventID] {
			if len(attempts) != 1 || attempts[0].Outcome != leafv1.Outcome_OUTCOME_UNKNOWN || arrived != 1 {
				t.Errorf("cancelled event %s has attempts %v and arrived %d times, want one of unknown end", p.EventID, attempts, arrived)
			}
		} else if len(attempts) != 2 || attempts[1].Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED || arrived != 2 {
			t.Errorf("event %s has attempts %v and arrived %d times, want one of unknown end and a success", p.EventID, attempts, arrived)
		}
	}
	var ended list
	second.API().Call(t, "DeliveryService/ListDeliveries", object{"states": []string{"DELIVERY_STATE_CANCELLED"}, "pageSize": 1000}, &ended)
	if len(ended.Deliveries) != count/2 {
		t.Errorf("%d deliveries are cancelled, want %d", len(ended.Deliveries), count/2)
	}
	CheckFsck(t, cluster)
	t.Logf("the attempts of all were recorded %v after the kill", took.Round(time.Millisecond))
}
