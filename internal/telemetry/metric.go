package telemetry

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// maxSeries bounds one instrument: labels are closed sets (classes, outcomes, reasons, presets), never ids. What comes
// beyond is counted together under otel.metric.overflow.
const maxSeries = 1000

// Buckets of durations, in seconds: from a commit on a fast disk to a timeout. 0.01, 0.05 and 0.1 are objectives.
var (
	fastBuckets = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}
	slowBuckets = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600}
)

// Meter makes instruments of OpenTelemetry and shows them as Prometheus reads them. A nil Meter makes nil instruments, and
// those drop what they get: without an admin listener nothing is measured.
//
// Whoever is on a webhook's way binds its labels once, at the start. From then on a count is one atomic addition, and a
// duration one record without an allocation.
type Meter struct {
	registry *prometheus.Registry
	meter    metric.Meter
}

// NewMeter makes a meter that shows the Go runtime, the process and the program's version, and what is added to it.
func NewMeter(version string) (*Meter, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo(), otelprometheus.WithoutTargetInfo())
	if err != nil {
		return nil, fmt.Errorf("make Prometheus exporter: %w", err)
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithCardinalityLimit(maxSeries))
	m := &Meter{registry: registry, meter: provider.Meter("github.com/kapsel-dev/kapsel")}
	m.Gauge("kapsel.build.info", "", "Always 1; the label is the program's version.", func(observe Observe) { observe(1, "version", version) })
	return m, nil
}

// Handler serves what was measured, in the format that the request asks for.
func (m *Meter) Handler() http.Handler {
	// One that scrapes and a person beside it; each costs milliseconds and no query.
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// labelSet makes attributes of names and values in turn.
func labelSet(labels []string) attribute.Set {
	pairs := make([]attribute.KeyValue, 0, len(labels)/2)
	for i := 0; i+1 < len(labels); i += 2 {
		pairs = append(pairs, attribute.String(labels[i], labels[i+1]))
	}
	return attribute.NewSet(pairs...)
}

// must ends the program for an instrument that cannot be: its name is a constant.
func must[T any](instrument T, err error) T {
	if err != nil {
		panic(err)
	}
	return instrument
}

// Counter counts by labels. It shows each combination from when it was bound, so that the first count of a rare one is
// seen as an increase.
type Counter struct {
	mu     sync.RWMutex
	counts map[string]*Count
}

// Count is a counter with its labels.
type Count struct {
	n       atomic.Int64
	options []metric.ObserveOption
}

// Counter makes a counter. Names are dotted, without _total.
func (m *Meter) Counter(name, help string) *Counter {
	if m == nil {
		return nil
	}
	c := &Counter{counts: make(map[string]*Count)}
	must(m.meter.Int64ObservableCounter(name, metric.WithDescription(help), metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
		c.mu.RLock()
		defer c.mu.RUnlock()
		for _, count := range c.counts {
			o.Observe(count.n.Load(), count.options...)
		}
		return nil
	})))
	return c
}

// With binds label names and values in turn.
func (c *Counter) With(labels ...string) *Count {
	if c == nil {
		return nil
	}
	key := strings.Join(labels, "\x00")
	c.mu.RLock()
	count := c.counts[key]
	c.mu.RUnlock()
	if count != nil {
		return count
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if count = c.counts[key]; count == nil {
		count = &Count{options: []metric.ObserveOption{metric.WithAttributeSet(labelSet(labels))}}
		c.counts[key] = count
	}
	return count
}

// Add counts n more.
func (c *Count) Add(n int) {
	if c != nil {
		c.n.Add(int64(n))
	}
}

// Histogram shows how durations are spread, by labels.
type Histogram struct {
	instrument metric.Float64Histogram
	mu         sync.RWMutex
	timers     map[string]*Timer
}

// Timer is a histogram with its labels.
type Timer struct {
	instrument metric.Float64Histogram
	options    []metric.RecordOption
}

// FastHistogram makes a histogram of what should take milliseconds.
func (m *Meter) FastHistogram(name, help string) *Histogram {
	return m.histogram(name, help, fastBuckets)
}

// SlowHistogram makes a histogram of what may take minutes.
func (m *Meter) SlowHistogram(name, help string) *Histogram {
	return m.histogram(name, help, slowBuckets)
}

func (m *Meter) histogram(name, help string, buckets []float64) *Histogram {
	if m == nil {
		return nil
	}
	return &Histogram{
		instrument: must(m.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(help), metric.WithExplicitBucketBoundaries(buckets...))),
		timers:     make(map[string]*Timer),
	}
}

// With binds label names and values in turn.
func (h *Histogram) With(labels ...string) *Timer {
	if h == nil {
		return nil
	}
	key := strings.Join(labels, "\x00")
	h.mu.RLock()
	timer := h.timers[key]
	h.mu.RUnlock()
	if timer != nil {
		return timer
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if timer = h.timers[key]; timer == nil {
		timer = &Timer{instrument: h.instrument, options: []metric.RecordOption{metric.WithAttributeSet(labelSet(labels))}}
		h.timers[key] = timer
	}
	return timer
}

// Record takes one duration.
func (t *Timer) Record(d time.Duration) {
	if t != nil {
		t.instrument.Record(context.Background(), d.Seconds(), t.options...)
	}
}

// Observe tells a value with its labels, names and values in turn.
type Observe func(value float64, labels ...string)

// Gauge shows what read tells whenever somebody asks. It is called on the scraper's behalf: it must not wait, and not ask the
// database.
func (m *Meter) Gauge(name, unit, help string, read func(Observe)) {
	if m == nil {
		return
	}
	must(m.meter.Float64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(help),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			read(func(value float64, labels ...string) { o.Observe(value, metric.WithAttributeSet(labelSet(labels))) })
			return nil
		})))
}

// Sum shows a total that read tells whenever somebody asks, and that only grows.
func (m *Meter) Sum(name, unit, help string, read func(Observe)) {
	if m == nil {
		return
	}
	must(m.meter.Float64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(help),
		metric.WithFloat64Callback(func(_ context.Context, o metric.Float64Observer) error {
			read(func(value float64, labels ...string) { o.Observe(value, metric.WithAttributeSet(labelSet(labels))) })
			return nil
		})))
}
