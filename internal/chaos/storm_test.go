package chaos

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

var webhooksFlag = flag.Int("webhooks", 0, "webhooks of the storm; 0: 6000, which take about half a minute")

const (
	stormWebhooks  = 6000
	stormPerSecond = 400
	// lateWatch is how long a long storm keeps looking for late repeats: as long as a lease may run.
	lateWatch = 75 * time.Second
)

// blow is one failure from outside, when so many webhooks are acknowledged.
type blow struct {
	after    int
	database bool // else a node is killed
	node     int
}

func (b blow) String() string {
	if b.database {
		return fmt.Sprintf("after %d acks: database restarted without a goodbye", b.after)
	}
	return fmt.Sprintf("after %d acks: node %d killed", b.after, b.node)
}

// stormPlan draws a failure for about each 1,500 webhooks.
func stormPlan(r *Random, webhooks, nodes int) []blow {
	var plan []blow
	for after := 500 + r.IntN(500); after < webhooks*9/10; after += 1000 + r.IntN(1000) {
		plan = append(plan, blow{after: after, database: r.IntN(3) == 0, node: r.IntN(nodes)})
	}
	return plan
}

// Nodes that fail at their named points, are killed, and lose their database: nothing acknowledged is lost, and whatever
// arrives twice does so because nobody could know how the first attempt had ended.
func TestStormLosesNothing(t *testing.T) {
	r := NewRandom(t)
	count, long := stormWebhooks, *webhooksFlag > 0
	if long {
		count = *webhooksFlag
	} else {
		count = scaled(count)
	}
	ctx, cancel := context.WithTimeout(context.Background(), scenarioTime+time.Duration(count/stormPerSecond*4)*time.Second)
	defer cancel()
	cluster := NewCluster(t, r)
	nodes := []*Node{cluster.Start(t, "a"), cluster.Start(t, "b"), cluster.Start(t, "c")}
	sink := NewSink(t)
	route := nodes[0].API().CreateRoute(t, sink.URL)
	faults := fmt.Sprintf("seed=%d;ingest.before_commit=error:0.01;ingest.after_commit=error:0.01;ingest.hand_over=panic:0.001;"+
		"delivery.after_claim=delay:0.02:50ms;delivery.before_send=panic:0.0005;recorder.before_commit=panic:0.01;"+
		"recorder.after_commit=error:0.01;sealer.before_tiles=error:0.05;sealer.after_tiles=panic:0.05;sealer.before_sign=error:0.05;"+
		"sealer.after_highwater=exit:0.02;delivery.after_send=exit:0.0002;membership.beat=error:0.05", r.Uint32())
	plan := stormPlan(r, count, len(nodes))
	t.Logf("faults: %s", faults)
	for _, b := range plan {
		t.Log(b)
	}
	var urls []string
	for _, node := range nodes {
		node.Faults = faults
		node.Kill()
		node.Restart(t)
		urls = append(urls, node.IngestURL(route))
	}
	sources := Load{IngestURLs: urls, Secret: route.Secret, Count: count, PerSecond: stormPerSecond, Conns: 24}.Start(ctx, r)
	deaths := 0
	for under := true; under; {
		select {
		case <-sources.done:
			under = false
		case <-time.After(50 * time.Millisecond):
		}
		if len(plan) > 0 && sources.acked.Load() >= int64(plan[0].after) {
			if plan[0].database {
				restart(ctx, t, cluster)
			} else {
				nodes[plan[0].node].Kill()
			}
			plan = plan[1:]
		}
		for _, node := range nodes {
			if node.Ended() {
				deaths++
				node.Process = launch(t, []string{"KAPSEL_FAULTS=" + faults}, node.args...) // ready or dead again, it is looked at once more
			}
		}
	}
	posted := sources.Wait(t)
	for _, node := range nodes { // what is left has to settle, so the faults end
		node.Faults = ""
		node.Kill()
		node.Restart(t)
	}
	sink.AwaitAll(t, posted, settlePatience)
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	if long {
		time.Sleep(lateWatch)
	}
	ledger, arrivals := ReadLedger(t, cluster.DatabaseURL()), sink.Arrivals()
	CheckKept(t, posted, ledger, arrivals)
	repeats := checkCauses(t, ledger, arrivals)
	CheckFsck(t, cluster)
	t.Logf("%d webhooks, %d deaths of nodes, %d tries broken, %d leaves, %d of unknown end, %d repeats (%.4f %%)", count, deaths,
		Broken(posted), len(ledger.Leaves), unknownIn(ledger), repeats, 100*float64(repeats)/float64(count))
}

// checkCauses fails for each arrival without a leaf, and each repeat without an attempt that did not end well.
func checkCauses(t *testing.T, ledger *Ledger, arrivals map[string]Arrival) (repeats int) {
	t.Helper()
	for event, arrival := range arrivals {
		causes := 0
		for _, attempt := range ledger.Attempts[event] {
			if attempt.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED {
				causes++
			}
		}
		if leaves := len(ledger.Attempts[event]); arrival.Count > leaves || arrival.Count-1 > causes {
			t.Errorf("event %s arrived %d times, has %d leaves, and %d of them did not end well", event, arrival.Count, leaves, causes)
		}
		repeats += arrival.Count - 1
	}
	return repeats
}
