package chaos

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// drainPatience bounds a clean stop: attempts in flight end within 30 s, a busy machine included.
const drainPatience = 40 * time.Second

// `kapsel dev` is killed with its PostgreSQL in the middle of a load, and started again on the same data directory.
func TestKilledDevRecovers(t *testing.T) {
	ctx, r := scenario(t)
	dev := StartDev(t, FreeAddress(t, r))
	first := dev.Ready
	sink := NewSink(t)
	route := dev.API().CreateRoute(t, sink.URL)
	count := scaled(2000)
	sources := Load{
		IngestURLs: []string{dev.Ready.URL + "/ingest/" + route.EndpointID}, Secret: route.Secret,
		Count: count, PerSecond: scaled(1000), Conns: 16,
	}.Start(ctx, r)
	before := dev.Log(t).AwaitLeaves(t, 1, startPatience)
	sources.AwaitAcked(t, count/4+r.IntN(count/2))
	dev.Kill()
	taken := occupy(t, first.DestinationURL)
	dev.Restart(t)
	if taken != nil {
		taken.Close()
	}
	if dev.Ready.PublicKey != first.PublicKey || dev.Ready.LogURL != first.LogURL {
		t.Errorf("after the restart the log is %s with key %s: want %s with key %s",
			dev.Ready.LogURL, dev.Ready.PublicKey, first.LogURL, first.PublicKey)
	}
	if dev.Ready.APIKey != first.APIKey || dev.Ready.EndpointID != first.EndpointID || dev.Ready.DestinationID != first.DestinationID {
		t.Error("the restart has made a new demo beside the first")
	}
	if taken != nil && dev.Ready.DestinationURL == first.DestinationURL {
		t.Errorf("the demo's destination is still at %s, which another program has taken", first.DestinationURL)
	}
	var moved struct{ Destination struct{ URL string } }
	dev.API().Call(t, "DestinationService/GetDestination", map[string]any{"destinationId": first.DestinationID}, &moved)
	if moved.Destination.URL != dev.Ready.DestinationURL {
		t.Errorf("the demo's destination is %s, and its echo listens at %s", moved.Destination.URL, dev.Ready.DestinationURL)
	}
	posted := sources.Wait(t)
	if Broken(posted) == 0 {
		t.Error("the kill hit no source: this run has shown nothing")
	}
	sink.AwaitAll(t, posted, settlePatience)
	awaitNoneOpen(t, dev.API(), route) // what had arrived when it was killed is recorded once its node counts as dead
	log := dev.Log(t)
	after := log.Checkpoint(t)
	log.CheckGrown(t, before, after)

	if code := dev.Terminate(t, drainPatience); code != 0 {
		t.Fatalf("exit code %d after SIGTERM: want 0", code)
	}
	dev.ReadStopped(ctx, t, func(databaseURL string) {
		ledger, arrivals := ReadLedger(t, databaseURL), sink.Arrivals()
		CheckKept(t, posted, ledger, arrivals)
		CheckRecorded(t, ledger, arrivals)
		checkSealed(t, log, ledger)
	})
}

// awaitNoneOpen waits until the API lists no delivery of a route that is not closed.
func awaitNoneOpen(t *testing.T, api API, route Route) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		open, token := 0, ""
		for {
			var page struct {
				Deliveries    []struct{ ID string }
				NextPageToken string
			}
			api.Call(t, "DeliveryService/ListDeliveries", object{
				"destinationId": route.DestinationID, "states": []string{"DELIVERY_STATE_PENDING", "DELIVERY_STATE_IN_FLIGHT", "DELIVERY_STATE_HELD"},
				"pageSize": 1000, "pageToken": token,
			}, &page)
			open += len(page.Deliveries)
			if token = page.NextPageToken; token == "" {
				break
			}
		}
		if open == 0 {
			return
		}
		if time.Since(began) > settlePatience {
			t.Fatalf("%d deliveries are still open after %v", open, settlePatience)
		}
	}
}

// `kapsel dev` is told to stop in the middle of a load: it finishes what it has begun, seals it, and leaves the rest to
// the next start. Nothing arrives twice.
func TestStoppedDevDrainsAndSeals(t *testing.T) {
	ctx, r := scenario(t)
	dev := StartDev(t, FreeAddress(t, r))
	sink := NewSink(t)
	sink.SetDelay(200 * time.Millisecond) // so that there is something to drain
	route := dev.API().CreateRoute(t, sink.URL)
	count := scaled(2000)
	sources := Load{
		IngestURLs: []string{dev.Ready.URL + "/ingest/" + route.EndpointID}, Secret: route.Secret,
		Count: count, PerSecond: scaled(1000), Conns: 16,
	}.Start(ctx, r)
	before := dev.Log(t).AwaitLeaves(t, 1, startPatience)
	sources.AwaitAcked(t, count/4+r.IntN(count/2))
	if code := dev.Terminate(t, drainPatience); code != 0 {
		t.Fatalf("exit code %d after SIGTERM: want 0", code)
	}
	dev.ReadStopped(ctx, t, func(databaseURL string) {
		checkSealed(t, dev.Log(t), ReadLedger(t, databaseURL))
		checkNothingHeld(ctx, t, databaseURL)
	})

	sink.SetDelay(0)
	dev.Restart(t)
	posted := sources.Wait(t)
	sink.AwaitAll(t, posted, settlePatience)
	log := dev.Log(t)
	log.CheckGrown(t, before, log.Checkpoint(t))
	if code := dev.Signal(t, os.Interrupt, drainPatience); code != 0 {
		t.Fatalf("exit code %d after Ctrl-C: want 0", code)
	}
	dev.ReadStopped(ctx, t, func(databaseURL string) {
		ledger, arrivals := ReadLedger(t, databaseURL), sink.Arrivals()
		CheckKept(t, posted, ledger, arrivals)
		if repeats := CheckRecorded(t, ledger, arrivals); repeats > 0 || unknownIn(ledger) > 0 {
			t.Errorf("clean stops left %d attempts of unknown end and %d repeats", unknownIn(ledger), repeats)
		}
		checkSealed(t, log, ledger)
	})
}

// A stop soon after a crash: the lease of the sealer that was killed has not run out yet, and everything is sealed all the
// same before the process ends.
func TestDevStoppedSoonAfterACrashSeals(t *testing.T) {
	ctx, r := scenario(t)
	dev := StartDev(t, FreeAddress(t, r))
	sink := NewSink(t)
	route := dev.API().CreateRoute(t, sink.URL)
	load := Load{
		IngestURLs: []string{dev.Ready.URL + "/ingest/" + route.EndpointID}, Secret: route.Secret,
		Count: 200, PerSecond: 1000, Conns: 4,
	}
	posted := load.Start(ctx, r).Wait(t)
	sink.AwaitAll(t, posted, settlePatience)
	before := dev.Log(t).AwaitLeaves(t, int64(len(posted)), startPatience)
	dev.Kill()
	dev.Restart(t)
	posted = append(posted, load.Start(ctx, r).Wait(t)...)
	log := dev.Log(t)
	log.CheckGrown(t, before, log.Checkpoint(t))
	if code := dev.Terminate(t, drainPatience); code != 0 {
		t.Errorf("exit code %d after SIGTERM: want 0", code)
	}
	dev.ReadStopped(ctx, t, func(databaseURL string) {
		ledger := ReadLedger(t, databaseURL)
		checkSealed(t, log, ledger)
		checkNothingHeld(ctx, t, databaseURL)
		if ledger.Events != len(posted) {
			t.Errorf("%d webhooks made %d events", len(posted), ledger.Events)
		}
	})
}

// checkSealed fails unless the last published head covers every leaf.
func checkSealed(t *testing.T, log *LogClient, ledger *Ledger) {
	t.Helper()
	ledger.CheckDense(t)
	ledger.CheckHeads(t, log)
	if len(ledger.Notes) == 0 {
		t.Fatal("no head was published")
	}
	if last := log.open(t, ledger.Notes[len(ledger.Notes)-1]); last.Tree.N != int64(len(ledger.Leaves)) {
		t.Errorf("it stopped with %d leaves, %d of them sealed", len(ledger.Leaves), last.Tree.N)
	}
}

// checkNothingHeld fails if a delivery is still leased to a node that is gone.
func checkNothingHeld(ctx context.Context, t *testing.T, databaseURL string) {
	t.Helper()
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		t.Fatalf("connect to the database: %v", err)
	}
	defer conn.Close(ctx)
	var queued, held int
	err = conn.QueryRow(ctx, `select count(*), count(lease_owner) from delivery_queue`).Scan(&queued, &held)
	if err != nil {
		t.Fatalf("read the queue: %v", err)
	}
	if held > 0 {
		t.Errorf("%d of %d queued deliveries are still leased to the node that stopped", held, queued)
	}
	t.Logf("%d deliveries were left for the next start", queued)
}

// occupy listens where address, the URL of a program that has ended, did. It is nil if another test does so already.
func occupy(t *testing.T, address string) net.Listener {
	t.Helper()
	parsed, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", parsed.Host)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	return listener
}
