package chaos

import (
	"context"
	"net/http"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
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

// The database is restarted without a goodbye, twice, in the middle of a load. If it is back in time, no source is
// refused. Afterwards notices come again.
func TestRestartedDatabaseLosesNothing(t *testing.T) {
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	node := cluster.Start(t, "a")
	other := cluster.Start(t, "b") // which hears of changes by notices alone
	sink := NewSink(t)
	route := node.API().CreateRoute(t, sink.URL)

	count := scaled(5000)
	sources := Load{
		IngestURLs: []string{node.IngestURL(route)}, Secret: route.Secret, Count: count, PerSecond: scaled(1500), Conns: 32,
	}.Start(ctx, r)
	before := node.Log(t).AwaitLeaves(t, 1, startPatience)
	var away time.Duration
	for _, share := range []float64{0.25, 0.6} {
		sources.AwaitAcked(t, int((share+0.1*r.Float64())*float64(count)))
		away = max(away, restart(ctx, t, cluster))
	}
	posted := sources.Wait(t)
	if node.Ended() || other.Ended() {
		t.Fatal("the server did not survive the restart of its database")
	}
	if n := Broken(posted); n > 0 {
		t.Errorf("%d tries got no answer from a server that was there all the time", n)
	}
	inTime := away < Hold/2 // and half of the hold for nodes to notice, and to write what they hold
	for _, p := range posted {
		for _, refusal := range p.Refusals {
			if inTime {
				t.Errorf("a source was refused with status %d, and the database was away for %v only: %s", refusal.Status, away, refusal.Body)
			}
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
	inForce := checkNotices(ctx, t, cluster, node, other)
	t.Logf("%d webhooks, %d refused, longest gap between acks %v, %d leaves, %d repeats, %d heads, a change is in force elsewhere after %v",
		count, refused(posted), sources.LongestGap().Round(time.Millisecond), len(ledger.Leaves), repeats, len(ledger.Notes), inForce.Round(time.Millisecond))
}

// restart stops the database without a goodbye, starts it again, and returns how long it was away.
func restart(ctx context.Context, t *testing.T, cluster *Cluster) time.Duration {
	t.Helper()
	began := time.Now()
	if err := cluster.Postgres.Restart(ctx, true); err != nil {
		t.Fatalf("restart the database: %v", err)
	}
	away := time.Since(began)
	t.Logf("the database was away for %v", away.Round(time.Millisecond))
	return away
}

// checkNotices fails unless both nodes listen for notices, and an endpoint that is made on one takes webhooks on the other.
func checkNotices(ctx context.Context, t *testing.T, cluster *Cluster, node, other *Node) time.Duration {
	t.Helper()
	conn, err := pgx.Connect(ctx, cluster.DatabaseURL())
	if err != nil {
		t.Fatalf("connect to the database: %v", err)
	}
	defer conn.Close(ctx)
	var listening int
	err = conn.QueryRow(ctx, `select count(*) from pg_stat_activity where application_name = 'kapsel listener' and query ~* '^listen '`).Scan(&listening)
	if err != nil || listening != 2 {
		t.Errorf("%d connections listen for notices, error %v: want one of each node", listening, err)
	}
	sink := NewSink(t)
	began := time.Now()
	route := node.API().CreateRoute(t, sink.URL)
	for {
		code, answer, err := Post(ctx, http.DefaultClient, other.IngestURL(route), route.Secret, "after", "ping", []byte(`{}`))
		switch {
		case err == nil && code == http.StatusAccepted:
			return time.Since(began)
		case err != nil || code != http.StatusNotFound || time.Since(began) > 2*inForcePatience:
			t.Fatalf("a new endpoint on another node, after %v: status %d, error %v: %s", time.Since(began), code, err, answer)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
