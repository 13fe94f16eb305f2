package chaos

import (
	"testing"
	"time"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

// takeoverTime is how long the work of a lost node may lie: 5 s until it counts as dead, and time to do it again and to
// seal it.
const takeoverTime = 15 * time.Second

// Three nodes share the work, and nothing is sent twice. One is killed, and the others take over what it held.
func TestThreeNodesShareAndTakeOver(t *testing.T) {
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	first, second, third := cluster.Start(t, "a"), cluster.Start(t, "b"), cluster.Start(t, "c")
	sink := NewSink(t)
	route := first.CreateRoute(t, sink.URL)
	load := Load{
		IngestURLs: []string{first.IngestURL(route), second.IngestURL(route), third.IngestURL(route)}, Secret: route.Secret,
		Count: scaled(2500), PerSecond: scaled(1000), Conns: 32,
	}

	posted := load.Start(ctx, r).Wait(t)
	sink.AwaitAll(t, posted, settlePatience)
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	arrivals := sink.Arrivals()
	ledger := ReadLedger(t, cluster.DatabaseURL())
	CheckKept(t, posted, ledger, arrivals)
	if repeats := CheckRecorded(t, ledger, arrivals); repeats > 0 || len(ledger.Leaves) != len(posted) {
		t.Errorf("nobody was killed, and %d webhooks made %d leaves and %d repeats", len(posted), len(ledger.Leaves), repeats)
	}
	if workers := nodesIn(ledger); len(workers) != 3 {
		t.Errorf("%d nodes made attempts: want 3", len(workers))
	}
	before := first.Log(t).Checkpoint(t)
	second.Log(t).CheckGrown(t, before, second.Log(t).Checkpoint(t))

	sink.SetDelay(100 * time.Millisecond) // so that the node holds something when it dies
	load.Count, load.PerSecond = 1000, 500
	sources := load.Start(ctx, r)
	sources.AwaitAcked(t, 300+r.IntN(400))
	first.Kill()
	killed := time.Now()
	more := sources.Wait(t)
	AwaitSettled(t, cluster.DatabaseURL(), takeoverTime-time.Since(killed))
	settled, took := time.Since(killed), sink.LastArrival().Sub(killed)

	posted = append(posted, more...)
	arrivals, ledger = sink.Arrivals(), ReadLedger(t, cluster.DatabaseURL())
	CheckKept(t, posted, ledger, arrivals)
	repeats := CheckRecorded(t, ledger, arrivals)
	CheckLog(t, second.Log(t), before, ledger)
	CheckFsck(t, cluster)
	unknown := unknownIn(ledger)
	if unknown == 0 {
		t.Error("the killed node held nothing: this run has shown nothing")
	}
	first.Restart(t)
	for name, node := range map[string]*Node{"first": first, "second": second, "third": third} {
		if code := node.Terminate(t, drainPatience); code != 0 {
			t.Errorf("the %s node's exit code after SIGTERM is %d: want 0, whichever of them seals", name, code)
		}
	}
	t.Logf("all delivered %v after the kill, and sealed after %v; %d attempts of unknown end, %d repeats",
		took.Round(time.Millisecond), settled.Round(time.Millisecond), unknown, repeats)
}

func nodesIn(ledger *Ledger) map[[16]byte]bool {
	nodes := make(map[[16]byte]bool)
	for _, attempts := range ledger.Attempts {
		for _, attempt := range attempts {
			nodes[attempt.Node] = true
		}
	}
	return nodes
}

func unknownIn(ledger *Ledger) (n int) {
	for _, attempts := range ledger.Attempts {
		for _, attempt := range attempts {
			if attempt.Outcome == leafv1.Outcome_OUTCOME_UNKNOWN {
				n++
			}
		}
	}
	return n
}

// A new generation starts beside the old one, which then stops, under load: nothing is lost, and nothing is doubled.
func TestNextGenerationTakesOverUnderLoad(t *testing.T) {
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	blue := cluster.Start(t, "blue")
	green := cluster.Start(t, "green")
	sink := NewSink(t)
	sink.SetDelay(20 * time.Millisecond) // so that blue has something in flight when it stops
	route := blue.CreateRoute(t, sink.URL)
	green.Kill() // it was there for its address and its copies of the keys

	count := scaled(2500)
	sources := Load{
		IngestURLs: []string{blue.IngestURL(route), green.IngestURL(route)}, Secret: route.Secret,
		Count: count, PerSecond: scaled(500), Conns: 32,
	}.Start(ctx, r)
	sources.AwaitAcked(t, count/5)
	green.Restart(t)
	sources.AwaitAcked(t, count*2/5)
	if code := blue.Terminate(t, drainPatience); code != 0 {
		t.Errorf("exit code %d of the old generation: want 0", code)
	}
	atStop := sources.acked.Load()
	posted := sources.Wait(t)
	if atStop == int64(count) {
		t.Error("the load had ended before the old generation: this run has shown nothing")
	}
	sink.AwaitAll(t, posted, settlePatience)
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	ledger, arrivals := ReadLedger(t, cluster.DatabaseURL()), sink.Arrivals()
	CheckKept(t, posted, ledger, arrivals)
	if repeats := CheckRecorded(t, ledger, arrivals); repeats > 0 || len(ledger.Leaves) != count {
		t.Errorf("%d webhooks made %d leaves and %d repeats: want a leaf each, and no repeat", count, len(ledger.Leaves), repeats)
	}
	if workers := nodesIn(ledger); len(workers) != 2 {
		t.Errorf("%d generations made attempts: want 2", len(workers))
	}
	CheckFsck(t, cluster)
	t.Logf("%d of %d webhooks were acknowledged when the old generation had ended; %d tries refused, longest gap between acks %v",
		atStop, count, refused(posted), sources.LongestGap().Round(time.Millisecond))
}
