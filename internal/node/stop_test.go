package node

import (
	"context"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
)

// hang makes the sink hold every request until release is called or the client goes away.
func (s *sink) hang(t testing.TB) (release func()) {
	held := make(chan struct{})
	release = sync.OnceFunc(func() { close(held) })
	s.answers(func(request *http.Request, _ string, _ int) int {
		select {
		case <-held:
			return http.StatusOK
		case <-request.Context().Done():
			return http.StatusGatewayTimeout
		}
	})
	t.Cleanup(release)
	return release
}

func readyz(t *testing.T, n *Node) int {
	t.Helper()
	response, err := client.Get(n.URL() + "/readyz")
	if err != nil {
		return 0
	}
	defer response.Body.Close()
	io.Copy(io.Discard, response.Body)
	return response.StatusCode
}

// A node stops under load while its sink takes its time: what is in flight ends, what waits goes to the other node, and each
// webhook arrives once.
func TestStopWithSlowSinkLosesAndDoublesNothing(t *testing.T) {
	r := newRig(t)
	first, second := r.start(r.config()), r.start(r.config())
	r.configure(10 * time.Second)
	r.exec("update destinations set max_in_flight = 64")
	r.refresh(first, second)
	r.sink.answers(func(*http.Request, string, int) int {
		time.Sleep(3 * time.Second)
		return http.StatusOK
	})
	var stopping atomic.Bool
	stopped := make(chan error, 1)
	time.AfterFunc(time.Second, func() {
		stopping.Store(true)
		stopped <- first.Stop(context.Background())
	})
	acked := r.load(120, 10*time.Millisecond, func(i int) *Node {
		if i%2 == 0 && !stopping.Load() {
			return first
		}
		return second
	})
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
	if n := r.count("select count(*) from delivery_queue where lease_owner = $1", first.ID()); n != 0 {
		t.Errorf("%d leases of the stopped node are left", n)
	}
	if n := r.count("select count(*) from nodes where node_id = $1", first.ID()); n != 0 {
		t.Error("the stopped node is still a member")
	}
	r.settled(acked)
	for _, key := range acked {
		if n := r.sink.taken(key); n != 1 {
			t.Errorf("%s arrived %d times", key, n)
		}
	}
	if n := r.count("select count(*) from attempts where outcome <> 1"); n != 0 {
		t.Errorf("%d attempts did not succeed", n)
	}
}

// A sink hangs for longer than the grace: the node ends in time all the same, and the other one records its attempts as
// unknown, soon and not only when the leases end, and repeats them.
func TestStopIsBoundedWhateverHangs(t *testing.T) {
	r := newRig(t)
	config := r.config()
	config.DrainTimeout, config.Grace = 10*time.Second, 2*time.Second
	first := r.start(config)
	r.configure(30 * time.Second)
	r.refresh(first)
	r.sink.hang(t)
	acked := r.load(20, 0, func(int) *Node { return first })
	eventually(t, "all are in flight", func() bool { return r.sink.requests() == len(acked) })

	began := time.Now()
	err := first.Stop(context.Background())
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the stop took %v with a grace of 2 s", took)
	}
	if err == nil {
		t.Error("the stop says that nothing was left")
	}
	if n := r.count("select count(*) from nodes where node_id = $1", first.ID()); n != 1 {
		t.Error("the node that left leases behind is forgotten: who would take them over?")
	}

	r.sink.answers(nil)
	second := r.start(r.config())
	r.refresh(second)
	r.settled(acked)
	if n := r.count("select count(*) from attempts where outcome = 3"); n != len(acked) {
		t.Errorf("%d attempts are unknown, want those %d of the node that is gone", n, len(acked))
	}
}

func TestNodeIsNotReadyBeforeItsListenerCloses(t *testing.T) {
	r, n := one(t, func(c *Config) { c.PreStopDelay = time.Second })
	if got := readyz(t, n); got != http.StatusOK {
		t.Fatalf("ready: status %d", got)
	}
	stopped := make(chan error, 1)
	began := time.Now()
	go func() { stopped <- n.Stop(context.Background()) }()
	eventually(t, "not ready", func() bool { return readyz(t, n) == http.StatusServiceUnavailable })
	status, _ := r.post(n, "late", []byte(`{"key":"late"}`))
	if status != http.StatusAccepted {
		t.Errorf("a webhook before the balancer knows: status %d", status)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
	if took := time.Since(began); took < time.Second {
		t.Errorf("the stop took %v, less than the pre-stop delay", took)
	}
	if status, _ := r.post(n, "later", nil); status != 0 {
		t.Errorf("a webhook after the stop: status %d", status)
	}
	r.settled([]string{"late"})
}

// The database goes away for good while webhooks and results are on their way.
func TestStopIsBoundedWhileTheDatabaseIsAway(t *testing.T) {
	r := newRig(t)
	proxy := pgtest.NewProxy(t, r.url)
	config := r.config()
	config.DatabaseURL = proxy.URL
	config.Hold, config.Grace = time.Second, 4*time.Second
	n := r.start(config)
	r.configure(10 * time.Second)
	r.refresh(n)
	release := r.sink.hang(t)
	acked := r.load(20, 0, func(int) *Node { return n })
	eventually(t, "all are in flight", func() bool { return r.sink.requests() == len(acked) })
	proxy.Away.Store(true)
	proxy.Cut()
	release() // results that nobody can record
	if status, header := r.post(n, "nowhere", nil); status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("without a database: status %d, Retry-After %q", status, header.Get("Retry-After"))
	}
	began := time.Now()
	if err := n.Stop(context.Background()); err == nil {
		t.Error("the stop says that nothing was left")
	}
	if took := time.Since(began); took > 12*time.Second {
		t.Errorf("the stop took %v with a grace of 4 s", took)
	}
	// Nothing is lost: another node finds the leases, and repeats what it knows nothing of.
	second := r.start(r.config())
	r.refresh(second)
	r.settled(acked)
}
