package chaos

import (
	"testing"
	"time"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

// takeoverTime is how long the work of a lost node may lie: 5 s until it counts as dead, and time to do it again and to
// seal it.
const takeoverTime = 15 * time.Second

// Two nodes share the work, one is killed, and the other one takes it over.
func TestTwoNodesShareAndTakeOver(t *testing.T) {
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	first := cluster.Start(t, "a")
	second := cluster.Start(t, "b")
	sink := NewSink(t)
	route := first.API().CreateRoute(t, sink.URL)
	load := Load{
		IngestURLs: []string{first.IngestURL(route), second.IngestURL(route)}, Secret: route.Secret,
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
	if workers := nodesIn(ledger); len(workers) != 2 {
		t.Errorf("%d nodes made attempts: want 2", len(workers))
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
	took := time.Since(killed)

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
	for name, node := range map[string]*Node{"the one": first, "the other": second} {
		if code := node.Terminate(t, drainPatience); code != 0 {
			t.Errorf("%s node's exit code after SIGTERM is %d: want 0, whichever of them seals", name, code)
		}
	}
	t.Logf("all delivered and sealed %v after the kill, %d attempts of unknown end, %d repeats", took.Round(time.Millisecond), unknown, repeats)
}

func nodesIn(ledger *Ledger) map[string]bool {
	nodes := make(map[string]bool)
	for _, attempts := range ledger.Attempts {
		for _, attempt := range attempts {
			nodes[string(attempt.NodeId)] = true
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
