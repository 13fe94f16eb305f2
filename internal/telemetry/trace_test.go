package telemetry

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

func TestTracingIsOffWithoutAnEndpoint(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
	tracer, err := NewTracer(t.Context(), "", slog.New(slog.DiscardHandler))
	if tracer.On() || err != nil {
		t.Errorf("on: %v, error %v", tracer.On(), err)
	}
	if n := testing.AllocsPerRun(10, func() { tracer.Sampled(TraceID{1}); tracer.Tell(Span{}) }); n > 0 {
		t.Errorf("%v allocations though it is off", n)
	}
	tracer.Close(t.Context())
}

func TestWrongTracingVariablesAreRefused(t *testing.T) {
	for name, value := range map[string]string{
		"OTEL_EXPORTER_OTLP_PROTOCOL": "thrift", "OTEL_TRACES_SAMPLER": "jaeger_remote", "OTEL_TRACES_SAMPLER_ARG": "2", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json",
		"OTEL_EXPORTER_OTLP_ENDPOINT": "127.0.0.1:4317", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "collector:4317",
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
			t.Setenv(name, value)
			_, err := NewTracer(t.Context(), "", slog.New(slog.DiscardHandler))
			if err == nil || !strings.Contains(err.Error(), "want ") {
				t.Errorf("error %v: want one that says what is wanted", err)
			}
		})
	}
}

func TestSamplingTakesItsShareOfTracesAndAlwaysTheSame(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	for ratio, want := range map[string][2]int{"0": {0, 0}, "0.25": {200, 300}, "1": {1000, 1000}} {
		t.Setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
		tracer, err := NewTracer(t.Context(), "", slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		sampled := 0
		for i := range 1000 {
			var id TraceID
			id[9], id[10] = byte(i*256/1000), byte(i)
			if tracer.Sampled(id) {
				sampled++
			}
		}
		if sampled < want[0] || sampled > want[1] {
			t.Errorf("ratio %s: %d of 1000 are sampled", ratio, sampled)
		}
		tracer.Close(t.Context())
	}
}

type forgetful struct{}

func (forgetful) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return nil }
func (forgetful) Shutdown(context.Context) error                             { return nil }

func BenchmarkTell(b *testing.B) {
	t := &Tracer{log: slog.New(slog.DiscardHandler), processor: sdktrace.NewBatchSpanProcessor(forgetful{})}
	defer t.Close(b.Context())
	s := Span{Name: "attempt", TraceID: TraceID{1}, ID: SpanID{2}, Parent: SpanID{3}, Start: time.Now(), End: time.Now(),
		Attributes: []attribute.KeyValue{attribute.String("kapsel.event_id", "evt_1"), attribute.Int("kapsel.attempt", 1)}, Links: []Link{{TraceID: TraceID{1}, SpanID: SpanID{4}}}}
	b.ReportAllocs()
	for b.Loop() {
		t.Tell(s)
	}
}
