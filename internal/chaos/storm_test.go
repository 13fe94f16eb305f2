package chaos

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	webhooksFlag = flag.Int("webhooks", 0, "webhooks of the storm; 0: 2500, which take about half a minute")
	durationFlag = flag.Duration("duration", 0, "instead of -webhooks: so many as sources post in this time")
	rateFlag     = flag.Int("rate", 400, "webhooks a second that the storm's sources post, if the nodes let them")
)

const (
	stormWebhooks = 2500
	// lateWatch is how long a long storm keeps looking for late repeats: as long as a lease may run.
	lateWatch = 75 * time.Second
	// settlePerSecond is how much a storm's backlog shrinks a second at least, on a busy machine, while three of ten requests fail.
	settlePerSecond = 250
	// stopPatience is how long nodes with faults may take to stop.
	stopPatience = 5 * time.Second
	// failingShare of the requests to the first sink fail, at random.
	failingShare = 0.3
)

// stormDestination is a policy by which everything ends soon: failures of seconds are survived by the number of tries.
var stormDestination = object{
	"timeout": fmt.Sprintf("%gs", sinkTimeout.Seconds()), "connectTimeout": "0.5s",
	"maxInFlight": 256, // answers that come too late take most of the room
	"retryPolicy": object{"base": "0.1s", "cap": "2s", "jitter": 0.5, "maxAttempts": 40},
}

// stormFaults are the points inside the nodes that fail. An attempt is followed by the node's death with probability death.
func stormFaults(seed uint64, death float64) string {
	return fmt.Sprintf("seed=%d;ingest.taken=panic:0.001;ingest.before_commit=error:0.02;ingest.after_commit=error:0.02;ingest.hand_over=panic:0.001;"+
		"delivery.after_claim=delay:0.02:50ms;delivery.settle=panic:0.001;delivery.before_send=panic:0.005;delivery.after_send=exit:%g;"+
		"recorder.taken=panic:0.005;recorder.before_commit=panic:0.05;recorder.after_commit=error:0.05;sealer.before_tiles=error:0.3;"+
		"sealer.after_tiles=panic:0.1;sealer.before_sign=error:0.3;sealer.after_highwater=exit:0.03;membership.beat=error:0.2;"+
		"holder.tick=panic:0.01;routes.read=error:0.1;node.notice=panic:0.02;node.heads=error:0.05", seed, death)
}

// mustFail are the components whose points fail so often that a run without such a failure would have shown nothing.
var mustFail = []string{"ingest", "delivery", "recorder", "sealer", "membership"}

// lane is a sink, the way to it, and the sources of its webhooks.
type lane struct {
	sink    *Sink
	link    *Link
	route   Route
	sources *Sources
}

// storm is a run under way.
type storm struct {
	cluster *Cluster
	nodes   []*Node
	lanes   []*lane
	ailing  ailing

	seed      uint64
	long      bool
	processes []*Process
	// kills and restarts are ours; deaths are of injected faults, and starts that failed are for want of a database.
	kills, restarts, deaths, failedStarts int
	ailments                              map[string]int
}

// Nodes that fail at their named points, are killed, lose their database, and are cut off from it and from the
// destinations, of which one fails three of ten requests: nothing acknowledged is lost, and whatever is accepted twice was
// so because Kapsel could not know how the first attempt had ended.
func TestStormLosesNothing(t *testing.T) {
	r := NewRandom(t)
	count, long := scaled(stormWebhooks), false
	if *durationFlag > 0 {
		*webhooksFlag = max(1, int(durationFlag.Seconds()*float64(*rateFlag)))
	}
	if *webhooksFlag > 0 {
		count, long = *webhooksFlag, *webhooksFlag > stormWebhooks
	}
	limit := scenarioTime + time.Duration(4*count / *rateFlag)*time.Second
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	s := prepareStorm(t, r, long)
	plan := stormPlan(r, count, len(s.nodes), len(s.lanes), long)
	t.Logf("faults: %s", stormFaults(s.seed, s.death()))
	for _, b := range plan {
		t.Log(b.describe())
	}
	began := time.Now()
	posted := s.rage(ctx, t, r, plan, count)
	raged := time.Since(began)
	s.calm(t)
	AwaitSettled(t, s.cluster.DatabaseURL(), settlePatience+time.Duration(count)*time.Second/settlePerSecond)
	settled := time.Since(began)
	if long {
		time.Sleep(lateWatch)
	}
	arrivals := make(map[string]Arrival, count)
	var longest time.Duration
	for _, l := range s.lanes {
		maps.Copy(arrivals, l.sink.Arrivals())
		longest = max(longest, l.sources.LongestGap())
	}
	ledger := ReadAttempts(t, s.cluster.DatabaseURL())
	ledger.CheckDense(t)
	dead := deadEvents(t, s.nodes[0].API())
	checkOutcomes(t, posted, ledger, arrivals, dead)
	repeats := checkCauses(t, ledger, arrivals)
	checkListed(t, r, s.nodes[0].API(), posted, ledger)
	CheckFsck(t, s.cluster)
	s.checkHit(t, plan)
	share := func(n int) string { return fmt.Sprintf("%d (%.3f %%)", n, 100*float64(n)/float64(count)) }
	t.Logf("%d webhooks in %v, settled after %v: %d kills, %d deaths by fault, %d restarts of the database, ailments %v",
		count, raged.Round(time.Second), settled.Round(time.Second), s.kills, s.deaths, s.restarts, s.ailments)
	t.Logf("sources: %d tries broken, %d refused, longest gap between acks %v", Broken(posted), refused(posted), longest.Round(time.Millisecond))
	t.Logf("%d leaves, %d of unknown end; dead letters %s; accepted more than once: after an unknown end %s, after a failure %s",
		len(ledger.indexes), unknownIn(ledger), share(len(dead)), share(repeats.afterUnknown), share(repeats.afterFailure))
}

// prepareStorm starts the nodes, with two destinations: one that fails at random, one that is away at times.
func prepareStorm(t *testing.T, r *Random, long bool) *storm {
	s := &storm{cluster: NewNetworkedCluster(t, r, "--breaker-pause", "300ms"), seed: uint64(r.Uint32()), long: long, ailments: make(map[string]int)}
	for _, name := range []string{"a", "b", "c"} {
		s.nodes = append(s.nodes, s.cluster.Start(t, name))
	}
	for _, failing := range []float64{failingShare, 0} {
		l := &lane{sink: NewFailingSink(t, &Random{rand.New(rand.NewPCG(r.Uint64(), 0))}, failing)}
		l.link = NewLink(t, r, strings.TrimSuffix(strings.TrimPrefix(l.sink.URL, "http://"), "/sink"))
		l.route = s.nodes[0].API().CreateRouteWith(t, "http://"+l.link.Address+"/sink", stormDestination)
		s.lanes = append(s.lanes, l)
	}
	for _, n := range s.nodes {
		n.Kill()
		s.relaunch(t, n)
	}
	for _, n := range s.nodes {
		s.awaitReady(t, n)
	}
	return s
}

// relaunch starts a node with faults: the same points, but each time other passes of them.
func (s *storm) relaunch(t *testing.T, n *Node) {
	death := s.death()
	if n == s.nodes[0] && s.deaths == 0 {
		death = soonDeath
	}
	n.Faults = stormFaults(s.seed+uint64(len(s.processes)), death)
	n.Relaunch(t)
	s.processes = append(s.processes, n.Process)
}

// awaitReady waits for a node that may die on the way.
func (s *storm) awaitReady(t *testing.T, n *Node) {
	for began := time.Now(); n.said.all()[saidReady] == 0; time.Sleep(20 * time.Millisecond) {
		if n.Ended() {
			s.bury(t, n, false)
		}
		if time.Since(began) > startPatience {
			t.Fatal("a node does not get ready")
		}
	}
}

// bury counts a node that has ended, and starts it again.
func (s *storm) bury(t *testing.T, n *Node, killed bool) {
	code := n.cmd.ProcessState.ExitCode()
	switch {
	case killed:
		s.kills++
	case code == -1: // by a signal, its own
		s.deaths++
	case n.said.all()[saidReady] == 0: // as when the database is away
		s.failedStarts++
	default:
		t.Errorf("a node that was ready has ended with code %d:\n%s", code, n.stderr.text())
	}
	s.relaunch(t, n)
}

// soonDeath is the first node's until one has died: after some 50 attempts, so that there is one however short the storm is.
const soonDeath = 0.02

// death is the probability of a node's death after an attempt, lower in long storms, which have more attempts.
func (s *storm) death() float64 {
	if s.long {
		return 0.0002
	}
	return 0.0008
}

// rage puts the load on, strikes the blows, and returns when all is acknowledged.
func (s *storm) rage(ctx context.Context, t *testing.T, r *Random, plan []blow, count int) (posted []Posted) {
	for i, l := range s.lanes {
		var urls []string
		for _, n := range s.nodes {
			urls = append(urls, n.IngestURL(l.route))
		}
		l.sources = Load{
			IngestURLs: urls, Secret: l.route.Secret, Count: (count + i) / len(s.lanes), PerSecond: max(1, *rateFlag/len(s.lanes)), Conns: 48,
		}.Start(ctx, r)
	}
	killed := make(map[*Node]bool)
	for under := true; under; {
		time.Sleep(20 * time.Millisecond)
		acked := 0
		under = false
		for _, l := range s.lanes {
			acked += int(l.sources.acked.Load())
			select {
			case <-l.sources.done:
			default:
				under = true
			}
		}
		for len(plan) > 0 && acked >= plan[0].after {
			if s.strike(ctx, t, plan[0]) {
				killed[s.nodes[plan[0].which]] = true
			}
			plan = plan[1:]
		}
		for _, n := range s.nodes {
			if n.Ended() {
				s.bury(t, n, killed[n])
				delete(killed, n)
			}
		}
	}
	for _, l := range s.lanes {
		posted = append(posted, l.sources.Wait(t)...)
	}
	return posted
}

// strike does what the plan says, and reports whether it has killed a node.
func (s *storm) strike(ctx context.Context, t *testing.T, b blow) bool {
	switch b.what {
	case node:
		s.nodes[b.which].Kill()
		return true
	case database:
		restart(ctx, t, s.cluster)
		s.restarts++
	case databaseLink:
		s.ailments[b.harm.String()]++
		s.ailing.suffer(t, s.nodes[b.which].Database, b.ailment, b.lasts)
	case sinkLink:
		s.ailments[b.harm.String()]++
		s.ailing.suffer(t, s.lanes[b.which].link, b.ailment, b.lasts)
	}
	return false
}

// calm ends all faults, so that what is left can settle: the nodes are told to stop, fail on the way or not, and start
// again as they are.
func (s *storm) calm(t *testing.T) {
	s.ailing.under.Wait()
	var stopping sync.WaitGroup
	for _, n := range s.nodes {
		stopping.Go(func() { n.Stop(stopPatience) })
	}
	stopping.Wait()
	for _, n := range s.nodes {
		n.Faults = ""
		n.Relaunch(t)
	}
	for _, n := range s.nodes {
		AwaitAnswer(t, n.Process, n.URL+"/readyz", startPatience)
	}
}

// checkHit fails unless each component of the nodes has failed, nodes have died at a point, and the plan was carried out.
func (s *storm) checkHit(t *testing.T, plan []blow) {
	t.Helper()
	hits := make(map[string]int)
	for _, p := range s.processes {
		for point, n := range p.said.all() {
			hits[point] += n
		}
	}
	delete(hits, saidReady)
	t.Logf("injected, as the nodes say: %v; %d starts without a database", hits, s.failedStarts)
	for _, component := range mustFail {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(hits)), func(point string) bool { return strings.HasPrefix(point, component+".") }) {
			t.Errorf("no point of %s has failed: this run has shown nothing of it", component)
		}
	}
	if s.deaths == 0 {
		t.Error("no node has died at a point")
	}
	struck := s.restarts
	for _, n := range s.ailments {
		struck += n
	}
	if planned := len(plan); struck+s.kills < planned-1 { // a node may have died just before it was to be killed
		t.Errorf("%d blows were struck, %d were planned", struck+s.kills, planned)
	}
}

func refused(posted []Posted) (n int) {
	for _, p := range posted {
		n += len(p.Refusals)
	}
	return n
}
