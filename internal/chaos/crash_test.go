package chaos

import (
	"context"
	"testing"
	"time"
)

// The server is killed in the middle of a load, and started again on the same database and state directory.
func TestKilledServerLosesNothing(t *testing.T) {
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	node := cluster.Start(t, "a")
	sink := NewSink(t)
	sink.SetDelay(5 * time.Millisecond)
	route := node.API().CreateRoute(t, sink.URL)

	count := scaled(5000)
	sources := Load{
		IngestURLs: []string{node.IngestURL(route)}, Secret: route.Secret, Count: count, PerSecond: scaled(2000), Conns: 32,
	}.Start(ctx, r)
	before := node.Log(t).AwaitLeaves(t, 1, startPatience)
	sources.AwaitAcked(t, count/4+r.IntN(count/2))
	node.Kill()
	node.Restart(t)
	posted := sources.Wait(t)
	if Broken(posted) == 0 {
		t.Error("the kill hit no source: this run has shown nothing")
	}

	sink.AwaitAll(t, posted, settlePatience)
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	ledger, arrivals := ReadLedger(t, cluster.DatabaseURL()), sink.Arrivals()
	CheckKept(t, posted, ledger, arrivals)
	repeats := CheckRecorded(t, ledger, arrivals)
	CheckLog(t, node.Log(t), before, ledger)
	CheckFsck(t, cluster)
	t.Logf("%d webhooks, %d tries broken, %d leaves, %d repeats, %d heads", count, Broken(posted), len(ledger.Leaves), repeats, len(ledger.Notes))
}

// The database is restarted without a goodbye, twice, in the middle of a load.
func TestRestartedDatabaseLosesNothing(t *testing.T) {
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	node := cluster.Start(t, "a")
	sink := NewSink(t)
	route := node.API().CreateRoute(t, sink.URL)

	count := scaled(5000)
	sources := Load{
		IngestURLs: []string{node.IngestURL(route)}, Secret: route.Secret, Count: count, PerSecond: scaled(1500), Conns: 32,
	}.Start(ctx, r)
	before := node.Log(t).AwaitLeaves(t, 1, startPatience)
	for _, share := range []float64{0.25, 0.6} {
		sources.AwaitAcked(t, int((share+0.1*r.Float64())*float64(count)))
		restart(ctx, t, cluster)
	}
	posted := sources.Wait(t)
	if node.Ended() {
		t.Fatal("the server did not survive the restart of its database")
	}
	if n := Broken(posted); n > 0 {
		t.Errorf("%d tries got no answer from a server that was there all the time", n)
	}
	for _, p := range posted {
		for _, refusal := range p.Refusals {
			// The server's clock starts a little after the source's, and its answer takes a moment.
			if refusal.Status != 503 || refusal.After < Hold-500*time.Millisecond {
				t.Errorf("a source was refused after %v with status %d, though webhooks are held for %v: %s", refusal.After, refusal.Status, Hold, refusal.Body)
			}
		}
	}

	sink.AwaitAll(t, posted, settlePatience)
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	ledger, arrivals := ReadLedger(t, cluster.DatabaseURL()), sink.Arrivals()
	CheckKept(t, posted, ledger, arrivals)
	repeats := CheckRecorded(t, ledger, arrivals)
	CheckLog(t, node.Log(t), before, ledger)
	CheckFsck(t, cluster)
	t.Logf("%d webhooks, %d leaves, %d repeats, %d heads", count, len(ledger.Leaves), repeats, len(ledger.Notes))
}

func restart(ctx context.Context, t *testing.T, cluster *Cluster) {
	t.Helper()
	began := time.Now()
	if err := cluster.Postgres.Restart(ctx, true); err != nil {
		t.Fatalf("restart the database: %v", err)
	}
	t.Logf("the database was away for %v", time.Since(began).Round(time.Millisecond))
}
