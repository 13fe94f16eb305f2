package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// busyForwarder is a forwarder with a queue for a destination that is dead. Each failure there is an attempt, recorded and
// sealed later, as on a server.
type busyForwarder struct {
	*forwarder
	queued   atomic.Int64
	failures atomic.Int64
	settled  atomic.Int64
	forget   int64 // deliveries of the backlog that vanish
	refuse   error // of Queue
}

func (b *busyForwarder) Queue(_ context.Context, n int) error {
	b.queued.Add(int64(n))
	return b.refuse
}

func (b *busyForwarder) Queued(context.Context) (int, error) {
	return int(b.queued.Load() - b.forget), nil
}

func (b *busyForwarder) Settle(context.Context) error {
	b.settled.Add(1)
	return nil
}

func (*busyForwarder) Connections(context.Context) (int, error) { return 7, nil }

// Progress has a new failed attempt each time, the last of them never sealed yet.
func (b *busyForwarder) Progress(ctx context.Context) (Progress, error) {
	p, err := b.forwarder.Progress(ctx)
	if b.queued.Load() == 0 {
		return p, err
	}
	failures := b.failures.Add(1)
	p.Recorded += failures
	p.Sealed += failures - 1
	return p, err
}

// A healthy destination that gets slower once there is a backlog shows it, and nothing else.
func TestNoisyNeighbourShowsInTheRatio(t *testing.T) {
	b := &busyForwarder{forwarder: startForwarder(t)}
	b.answer = func(w http.ResponseWriter, _ *http.Request, _ uint64) int {
		if b.queued.Load() > 0 {
			time.Sleep(40 * time.Millisecond)
		}
		w.WriteHeader(http.StatusAccepted)
		return 1
	}
	cfg := Config{IngestURL: b.url, Secret: testSecret, Conns: 16, Rate: 100, Warmup: 50 * time.Millisecond, Duration: 500 * time.Millisecond}
	began := time.Now()
	r, err := RunNoisy(t.Context(), cfg, b.sink, b, 3000)
	if err != nil || r.Err() != nil {
		t.Fatalf("run: %v, %v", err, r.Err())
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s: it waited for the dead destination's attempts to end", took)
	}
	if r.HealthyP50WithDead < 40 || r.HealthyP50 >= 40 || r.HealthyP99WithDead < 40 || r.HealthyP99 <= 0 {
		t.Errorf("p50 %.1f then %.1f ms, p99 %.1f then %.1f ms: want 40 ms more with the backlog", r.HealthyP50, r.HealthyP50WithDead, r.HealthyP99, r.HealthyP99WithDead)
	}
	if want := r.HealthyP99WithDead / r.HealthyP99; r.Ratio != want {
		t.Errorf("ratio: got %g, want %g", r.Ratio, want)
	}
	if n := b.settled.Load(); n != 2 {
		t.Errorf("settled %d times: want once before each measurement", n)
	}
	if r.Alone.Accepted != 50 || r.WithDead.Accepted != 50 || r.Backlog != 3000 || r.BacklogLeft != 3000 || r.Connections != 7 {
		t.Errorf("accepted %d and %d, backlog %d and %d, connections %d: want 50, 50, 3000, 3000, 7",
			r.Alone.Accepted, r.WithDead.Accepted, r.Backlog, r.BacklogLeft, r.Connections)
	}
}

func TestBacklogScenarioComparesThroughput(t *testing.T) {
	b := &busyForwarder{forwarder: startForwarder(t)}
	b.answer = func(w http.ResponseWriter, _ *http.Request, _ uint64) int {
		time.Sleep(5 * time.Millisecond)
		if b.queued.Load() > 0 {
			time.Sleep(20 * time.Millisecond)
		}
		w.WriteHeader(http.StatusAccepted)
		return 1
	}
	cfg := Config{IngestURL: b.url, Secret: testSecret, Conns: 4, Duration: 400 * time.Millisecond}
	r, err := RunBacklog(t.Context(), cfg, b.sink, b, 5000)
	if err != nil || r.Err() != nil {
		t.Fatalf("run: %v, %v", err, r.Err())
	}
	if r.DeliveredPerSecondBacklog <= 0 || r.DeliveredPerSecondEmpty <= r.DeliveredPerSecondBacklog || r.Ratio >= 0.9 {
		t.Errorf("%.0f then %.0f a second, ratio %.2f: want a fraction with the backlog", r.DeliveredPerSecondEmpty, r.DeliveredPerSecondBacklog, r.Ratio)
	}
}

func TestLossBesideADeadDestinationFailsTheRun(t *testing.T) {
	b := &busyForwarder{forwarder: startForwarder(t)}
	b.answer = func(w http.ResponseWriter, _ *http.Request, id uint64) int {
		w.WriteHeader(http.StatusAccepted)
		if b.queued.Load() > 0 && id == 1 {
			return 0
		}
		return 1
	}
	cfg := Config{IngestURL: b.url, Secret: testSecret, Conns: 2, Duration: 50 * time.Millisecond, DrainTimeout: 100 * time.Millisecond}
	r, err := RunNoisy(t.Context(), cfg, b.sink, b, 10)
	if err != nil {
		t.Fatal(err)
	}
	if failed := r.Err(); r.Lost != 1 || failed == nil || !strings.Contains(failed.Error(), "with a backlog: 1 accepted") {
		t.Errorf("lost %d, %v: want 1, and an error that says when", r.Lost, failed)
	}
}

func TestBacklogThatVanishesFailsTheRun(t *testing.T) {
	b := &busyForwarder{forwarder: startForwarder(t), forget: 1}
	cfg := Config{IngestURL: b.url, Secret: testSecret, Conns: 2, Duration: 50 * time.Millisecond}
	r, err := RunBacklog(t.Context(), cfg, b.sink, b, 10)
	if err != nil {
		t.Fatal(err)
	}
	if failed := r.Err(); failed == nil || !strings.Contains(failed.Error(), "9 of 10") {
		t.Errorf("got %v, want an error that counts what is left", failed)
	}
}

func TestBacklogThatCannotBeQueuedEndsTheRun(t *testing.T) {
	b := &busyForwarder{forwarder: startForwarder(t), refuse: errors.New("no space left")}
	cfg := Config{IngestURL: b.url, Secret: testSecret, Conns: 1, Duration: 20 * time.Millisecond}
	if _, err := RunNoisy(t.Context(), cfg, b.sink, b, 10); !errors.Is(err, b.refuse) {
		t.Errorf("got %v, want what the server said", err)
	}
	for _, backlog := range []int{-1, 0, MaxBacklog + 1} {
		if _, err := RunBacklog(t.Context(), cfg, b.sink, b, backlog); err == nil || !strings.Contains(err.Error(), "backlog") {
			t.Errorf("a backlog of %d: got %v, want an error", backlog, err)
		}
	}
}

func TestSlowSinkCountsWhatIsInFlightAtOnce(t *testing.T) {
	const delay = 600 * time.Millisecond
	sink, err := NewSlowSink("127.0.0.1:0", delay)
	if err != nil {
		t.Fatal(err)
	}
	b := &busyForwarder{forwarder: startForwarderTo(t, sink)}
	cfg := Config{IngestURL: b.url, Secret: testSecret, Conns: 8, Rate: 200, Duration: 100 * time.Millisecond}
	r, err := RunInFlight(t.Context(), cfg, sink, b)
	if err != nil || r.Err() != nil {
		t.Fatalf("run: %v, %v", err, r.Err())
	}
	// The forwarder has 16 connections to the sink, and up to 20 webhooks come faster than one is answered: a busy machine posts fewer.
	accepted := r.Load.Accepted
	if accepted == 0 || accepted > 20 || r.PeakInFlight != min(16, accepted) || r.SinkSeconds != 0.6 {
		t.Errorf("at most %d in flight of %d to a sink of %g s: want 16, or all of up to 20, 0.6", r.PeakInFlight, accepted, r.SinkSeconds)
	}
	rounds := (accepted + 15) / 16
	if most := float64(accepted) / (time.Duration(rounds) * delay).Seconds(); r.DeliveredPerSecond <= 0 || r.DeliveredPerSecond > most {
		t.Errorf("%.1f a second in %d rounds of %s: want up to %.1f", r.DeliveredPerSecond, rounds, delay, most)
	}
}

func TestHangingSinkEndsWithItsContext(t *testing.T) {
	sink, err := NewSlowSink("127.0.0.1:0", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- sink.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answered := make(chan error, 1)
	go func() {
		response, err := client.Post(sink.URL(), "application/json", strings.NewReader("{}"))
		if err == nil {
			response.Body.Close()
		}
		answered <- err
	}()
	for sink.waiting.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("the sink ended with %v", err)
	}
	if err := <-answered; err == nil {
		t.Error("a hanging sink answered")
	}
}

func TestScenariosHaveTheDocumentedKeys(t *testing.T) {
	for name, c := range map[string]struct {
		result any
		keys   string
	}{
		"noisy":    {NoisyResult{}, "healthy_p99_ms healthy_p99_with_dead_ms ratio healthy_p50_ms healthy_p50_with_dead_ms backlog backlog_left alone with_dead"},
		"backlog":  {BacklogResult{}, "delivered_per_s_empty delivered_per_s_with_backlog ratio backlog backlog_left alone with_dead"},
		"inflight": {InFlightResult{}, "delivered_per_s peak_in_flight sink_s load"},
	} {
		raw, err := json.Marshal(c.result)
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatal(err)
		}
		for _, key := range strings.Fields(c.keys + " rss_mib db_connections lost duplicated") {
			if _, ok := got[key]; !ok {
				t.Errorf("%s: no key %s in %s", name, key, raw)
			}
		}
	}
}

func TestTablesOfScenariosShowWhatTheyAreFor(t *testing.T) {
	c := Comparison{Backlog: 1234, BacklogLeft: 1233, Lost: 5, Footprint: Footprint{Connections: 17}}
	c.WithDead.Rejected = map[int]int64{503: 6}
	for _, test := range []struct {
		result interface{ WriteTable(io.Writer) error }
		parts  []string
	}{
		{NoisyResult{Ratio: 1.5, Comparison: c}, []string{"1.50 times", "1234", "1233", "lost 5", "connections 17", "503 x 6", "unknown MiB"}},
		{BacklogResult{Ratio: 0.9, Comparison: c}, []string{"0.90 times", "beside a dead one"}},
		{InFlightResult{PeakInFlight: 1000, SinkSeconds: 1, Lost: 5}, []string{"takes 1 s", "1000 in flight", "lost 5"}},
	} {
		var b bytes.Buffer
		if err := test.result.WriteTable(&b); err != nil {
			t.Fatal(err)
		}
		for _, part := range test.parts {
			if !strings.Contains(b.String(), part) {
				t.Errorf("no %q in\n%s", part, b.String())
			}
		}
	}
}

func TestPeakMemoryGrowsWithWhatIsHeld(t *testing.T) {
	before := peakMemory()
	if before == nil {
		t.Skip("this system does not tell")
	}
	held := bytes.Repeat([]byte("x"), 256<<20)
	// The kernel reckons it with counters of each thread, which are some pages behind.
	if after := peakMemory(); after == nil || *after < max(255, *before-1) {
		t.Errorf("after %d MiB: %s MiB, before %s", len(held)>>20, optional(after), optional(before))
	}
}
