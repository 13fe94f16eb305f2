package telemetry

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func shown(t *testing.T, m *Meter) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

func TestMeterShowsWhatPrometheusReads(t *testing.T) {
	m, err := NewMeter("v1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	c := m.Counter("kapsel.test.things", "Things.")
	c.With("kind", "rare")
	c.With("kind", "usual").Add(2)
	c.With("kind", "usual").Add(1)
	m.FastHistogram("kapsel.test.duration", "How long.").With().Record(7 * time.Millisecond)
	m.Gauge("kapsel.test.depth", "", "Depth.", func(observe Observe) { observe(5, "side", "left") })
	text := shown(t, m)
	for _, want := range []string{
		`kapsel_test_things_total{kind="rare"} 0`, `kapsel_test_things_total{kind="usual"} 3`,
		`kapsel_test_duration_seconds_bucket{le="0.005"} 0`, `kapsel_test_duration_seconds_bucket{le="0.01"} 1`,
		`kapsel_test_depth{side="left"} 5`, `kapsel_build_info{version="v1.2.3"} 1`, "# TYPE go_goroutines gauge",
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("%s is not shown", want)
		}
	}
}

func TestNilMeterDropsWhatItGets(t *testing.T) {
	var m *Meter
	m.Counter("a", "").With("b", "c").Add(1)
	m.FastHistogram("a", "").With().Record(time.Second)
	m.Gauge("a", "", "", nil)
	m.Sum("a", "", "", nil)
}

// Both are on a webhook's way: no allocation.
func TestCountingAllocatesNothing(t *testing.T) {
	m, err := NewMeter("")
	if err != nil {
		t.Fatal(err)
	}
	count, timer := m.Counter("kapsel.a", "").With("b", "c"), m.FastHistogram("kapsel.d", "").With("e", "f")
	timer.Record(time.Second)
	if n := testing.AllocsPerRun(100, func() { count.Add(1); timer.Record(time.Millisecond) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkCount(b *testing.B) {
	m, _ := NewMeter("")
	count := m.Counter("kapsel.a", "").With("b", "c")
	b.ReportAllocs()
	for b.Loop() {
		count.Add(1)
	}
}

func BenchmarkRecord(b *testing.B) {
	m, _ := NewMeter("")
	timer := m.FastHistogram("kapsel.a", "").With("b", "c")
	b.ReportAllocs()
	for b.Loop() {
		timer.Record(3 * time.Millisecond)
	}
}
