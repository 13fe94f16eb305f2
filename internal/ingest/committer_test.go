package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
)

func TestLostAnswerOfACommitStoresOnce(t *testing.T) {
	for _, key := range []string{"key", ""} {
		t.Run("key "+key, func(t *testing.T) {
			r := newRig(t, 10*time.Second)
			for range 20 { // so that the lost answer is that of a commit, and not of a preparation
				r.accept(r.webhook("", "before"))
			}
			r.proxy.DropAnswer.Store(true)
			receipt := r.accept(r.webhook(key, "answer lost"))
			if r.proxy.DropAnswer.Load() {
				t.Fatal("no answer was lost")
			}
			if receipt.Duplicate {
				t.Error("the webhook is called a repeat of itself")
			}
			if got := r.count("select count(*) from events where body = 'answer lost'"); got != 1 {
				t.Errorf("stored %d times", got)
			}
			r.await(0, "select count(*) from delivery_queue")
			if got := r.bodies(receipt.EventID); len(got) != 1 {
				t.Errorf("arrived %d times", len(got))
			}
		})
	}
}

// The connection breaks, and the server is still at work on what it has received: it commits after we looked for it.
func TestCommitThatEndsAfterTheLookForItStoresOnce(t *testing.T) {
	r := newRig(t, 15*time.Second)
	r.accept(r.webhook("", "before"))
	r.await(0, "select count(*) from delivery_queue")
	unblock := r.block()
	const waiting = `select count(*) from pg_locks where not granted and relation = 'events'::regclass`
	results := make(chan error, 2)
	receipts := make(chan Receipt, 2)
	for _, key := range []string{"key", ""} {
		go func() {
			receipt, err := r.Accept(t.Context(), r.webhook(key, "slow "+key))
			receipts <- receipt
			results <- err
		}()
	}
	r.await(1, waiting)
	before := r.count(waiting)
	r.proxy.Away.Store(true) // the wish to cancel what was sent does not come through either
	r.proxy.Cut()
	time.Sleep(200 * time.Millisecond)
	r.proxy.Away.Store(false)
	r.await(before+1, waiting) // the second try waits beside the first
	unblock()
	for range 2 {
		receipt := <-receipts
		if err := <-results; err != nil || receipt.Duplicate {
			t.Errorf("receipt %+v, %v", receipt, err)
		}
	}
	r.await(0, "select count(*) from delivery_queue")
	if got := r.count("select count(*) from events"); got != 3 {
		t.Errorf("%d events, want 3", got)
	}
}

func TestAcknowledgedEventsSurviveTheDatabasesDeath(t *testing.T) {
	server := pgtest.Durable(t)
	url := server.ConnString("postgres")
	if err := migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	r := newRigOn(t, url, 15*time.Second)
	var mu sync.Mutex
	acknowledged := make(map[uuid.UUID]string)
	stop := make(chan struct{})
	var group sync.WaitGroup
	for client := range 16 {
		group.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				body := fmt.Sprintf("%d-%d", client, i)
				receipt, err := r.Accept(context.Background(), r.webhook(body, body))
				if err != nil || receipt.Duplicate {
					t.Errorf("%s: %+v, %v", body, receipt, err)
					return
				}
				mu.Lock()
				acknowledged[receipt.EventID] = body
				mu.Unlock()
			}
		})
	}
	for range 2 {
		time.Sleep(150 * time.Millisecond)
		if err := server.Restart(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(150 * time.Millisecond)
	close(stop)
	group.Wait()
	if got := r.count("select count(*) from events"); got != len(acknowledged) {
		t.Errorf("%d events are stored, %d were acknowledged", got, len(acknowledged))
	}
	r.await(0, "select count(*) from delivery_queue")
	for event, body := range acknowledged {
		if got := r.bodies(event); len(got) != 1 || string(got[0]) != body {
			t.Errorf("%s arrived as %q", body, got)
		}
	}
	if got, next := r.count("select count(*) from attempts"), r.count("select next_index from logs"); got != len(acknowledged) || next != got {
		t.Errorf("%d attempts, next index %d: want %d", got, next, len(acknowledged))
	}
	if len(acknowledged) < 32 {
		t.Errorf("only %d events were under way", len(acknowledged))
	}
}

func TestRefusedWebhookDoesNotTakeItsBatchWithIt(t *testing.T) {
	r := newRig(t, 5*time.Second)
	unblock := r.block()
	const webhooks = 120
	errs := make([]error, webhooks)
	receipts := make([]Receipt, webhooks)
	var group sync.WaitGroup
	for i := range webhooks {
		group.Go(func() {
			w := r.webhook(fmt.Sprint(i/2), fmt.Sprint(i/2)) // each twice
			if i/2 == 17 {
				w.SourceAddress = "no text of PostgreSQL's: \x00"
			}
			receipts[i], errs[i] = r.Accept(t.Context(), w)
		})
	}
	time.Sleep(100 * time.Millisecond) // all of them wait for one batch or two
	unblock()
	group.Wait()
	for i, err := range errs {
		if i/2 == 17 {
			if !errors.Is(err, ErrRejected) {
				t.Errorf("the spoilt webhook: got %v, want ErrRejected", err)
			}
			continue
		}
		if err != nil {
			t.Errorf("webhook %d: %v", i, err)
		}
		if receipts[i].EventID != receipts[i^1].EventID || receipts[i].Duplicate == receipts[i^1].Duplicate {
			t.Errorf("webhook %d and its repeat: %+v, %+v", i, receipts[i], receipts[i^1])
		}
	}
	if got := r.count("select count(*) from events"); got != webhooks/2-1 {
		t.Errorf("%d events, want %d", got, webhooks/2-1)
	}
	r.await(0, "select count(*) from delivery_queue")
	for began := time.Now(); r.dispatcher.Room() != 8192; time.Sleep(time.Millisecond) { // soon after they were recorded
		if time.Since(began) > patience {
			t.Fatalf("room for %d deliveries, want all of it back", r.dispatcher.Room())
		}
	}
}

func TestFullBufferRefusesWithoutWaiting(t *testing.T) {
	r := newRig(t, 5*time.Second)
	for name, fill := range map[string]struct {
		body  string
		holds int
	}{
		"webhooks": {"{}", maxWaiting},
		"bytes":    {string(make([]byte, 1<<20)), maxWaitingBytes/(1<<20) - 1},
	} {
		t.Run(name, func(t *testing.T) {
			// Nobody empties it.
			idle := NewCommitter(r.db, r.node, delivery.DefaultLease, time.Second, r.dispatcher, r.committer.log)
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			for i := range fill.holds {
				if _, err := idle.commit(gone, newPending(r.webhook("", fill.body), "none")); !errors.Is(err, context.Canceled) {
					t.Fatalf("webhook %d: %v", i, err)
				}
			}
			began := time.Now()
			if _, err := idle.commit(t.Context(), newPending(r.webhook("", fill.body), "none")); !errors.Is(err, ErrOverloaded) {
				t.Errorf("got %v, want ErrOverloaded", err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("refused after %v", took)
			}
			// The end of the node answers all who wait.
			ended, end := context.WithCancel(t.Context())
			end()
			idle.Run(ended)
			if left := len(idle.waiting); left != 0 {
				t.Errorf("%d still wait after the end", left)
			}
		})
	}
}

func TestWebhooksAreHeldWhileTheDatabaseIsAway(t *testing.T) {
	const hold = 4 * time.Second
	r := newRig(t, hold)
	r.accept(r.webhook("", "before"))
	r.proxy.Away.Store(true)
	r.proxy.Cut()
	var answered atomic.Int64
	var group sync.WaitGroup
	for i := range 300 {
		group.Go(func() {
			receipt, err := r.Accept(t.Context(), r.webhook(fmt.Sprint(i), "held"))
			answered.Add(1)
			if err != nil || receipt.Duplicate {
				t.Errorf("receipt %+v, %v", receipt, err)
			}
		})
	}
	time.Sleep(500 * time.Millisecond)
	if got := answered.Load(); got != 0 {
		t.Errorf("%d were answered without a database", got)
	}
	r.proxy.Away.Store(false)
	group.Wait()
	if got := r.count("select count(*) from events where body = 'held'"); got != 300 {
		t.Errorf("%d events, want 300", got)
	}
	r.await(0, "select count(*) from delivery_queue")
}

// However many wait, none waits much longer than it may be held for.
func TestSourcesAreToldInTimeThatTheDatabaseIsAway(t *testing.T) {
	const hold, webhooks = time.Second, 4000
	r := newRig(t, hold)
	r.proxy.Away.Store(true)
	r.proxy.Cut()
	var unavailable atomic.Int64
	began := time.Now()
	var group sync.WaitGroup
	for i := range webhooks {
		group.Go(func() {
			if _, err := r.Accept(t.Context(), r.webhook(fmt.Sprint(i), "held")); errors.Is(err, ErrUnavailable) {
				unavailable.Add(1)
			}
		})
	}
	group.Wait()
	took := time.Since(began)
	if unavailable.Load() != webhooks {
		t.Errorf("%d of %d were told that the database is away", unavailable.Load(), webhooks)
	}
	if took < hold || took > 10*hold {
		t.Errorf("the last was told after %v, held for %v", took, hold)
	}
	r.proxy.Away.Store(false)
	if got := r.count("select count(*) from events"); got != 0 {
		t.Errorf("%d events are stored", got)
	}
	r.accept(r.webhook("0", "again"))
	if got := r.dispatcher.Room(); got < 8191 {
		t.Errorf("room for %d deliveries: what was not stored still takes some", got)
	}
}

func TestOverflowIsClaimedAndDelivered(t *testing.T) {
	r := newRig(t, 5*time.Second)
	destination := r.routes.Snapshot().Destination(r.destination)
	taken := 0
	for r.dispatcher.Reserve(destination, 0) {
		taken++
	}
	var receipts []Receipt
	for i := range 50 {
		receipts = append(receipts, r.accept(r.webhook("", fmt.Sprint(i))))
	}
	if got := r.count("select count(*) from delivery_queue where lease_owner is null and due_at <= now()"); got != 50 {
		t.Errorf("%d deliveries are due for anyone, want 50", got)
	}
	// The claim has room of its own: however much intake brings, what has waited in the queue gets its turn.
	stop := start(r.claimer.Run)
	r.await(0, "select count(*) from delivery_queue")
	for range taken {
		r.dispatcher.Unreserve(destination, 0)
	}
	stop()
	for i, receipt := range receipts {
		if got := r.bodies(receipt.EventID); len(got) != 1 || string(got[0]) != fmt.Sprint(i) {
			t.Errorf("webhook %d arrived as %q", i, got)
		}
	}
}

func TestPausedDestinationsDeliveriesWait(t *testing.T) {
	r := newRig(t, 5*time.Second)
	r.exec(`update destinations set state = 'paused'`)
	r.refresh()
	receipt := r.accept(r.webhook("", "{}"))
	stop := start(r.claimer.Run)
	defer stop()
	time.Sleep(250 * time.Millisecond)
	if got := r.count("select count(*) from delivery_queue where lease_owner is null and attempts = 0"); got != 1 || r.bodies(receipt.EventID) != nil {
		t.Errorf("%d deliveries wait, arrived: %q", got, r.bodies(receipt.EventID))
	}
}
