package telemetry

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

const (
	// exportComplaint is how often at most it is said that spans are not exported.
	exportComplaint = time.Minute
	// closeTimeout is for how long the end waits for a collector.
	closeTimeout = 3 * time.Second
)

// TraceID and SpanID are those of W3C Trace Context.
type (
	TraceID = trace.TraceID
	SpanID  = trace.SpanID
)

// Kinds of spans.
const (
	Internal = trace.SpanKindInternal
	Server   = trace.SpanKindServer
	Client   = trace.SpanKindClient
)

// Link names a span of this or another trace.
type Link struct {
	TraceID TraceID
	SpanID  SpanID
}

// Span is something that has happened. It is told when it is over, so that what nobody wants to see costs nothing, and
// whether anybody does may depend on how it ended.
type Span struct {
	Name       string
	Kind       trace.SpanKind
	TraceID    TraceID
	ID         SpanID
	Parent     SpanID // zero: it has none
	Start, End time.Time
	Error      string // empty: it went well
	Attributes []attribute.KeyValue
	Links      []Link
}

// Tracer exports spans by OTLP. A nil Tracer exports none. What the collector does not take in time is dropped: nothing
// ever waits for it.
type Tracer struct {
	processor sdktrace.SpanProcessor
	about     *resource.Resource
	log       *slog.Logger
	below     uint64 // a trace is sampled whose last 56 bits are below this
}

// NewTracer makes a tracer as the standard variables of OpenTelemetry say: OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT)
// turns it on, and all other OTEL_EXPORTER_OTLP_* hold. The protocol is http/protobuf or grpc. OTEL_TRACES_SAMPLER_ARG is the share of traces whose good spans are
// exported, by default all; failures always are. Nil: it is off.
func NewTracer(ctx context.Context, version string, log *slog.Logger) (*Tracer, error) {
	endpoint := firstOf("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	if endpoint == "" || os.Getenv("OTEL_SDK_DISABLED") == "true" || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return nil, nil
	}
	// Exporters take a default instead of what they cannot read.
	if u, err := url.Parse(endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("OTEL_EXPORTER_OTLP_ENDPOINT (or …_TRACES_ENDPOINT): want http:// (without TLS) or https://, and a host") // it may hold a password
	}
	ratio, err := samplingRatio(os.Getenv("OTEL_TRACES_SAMPLER"), os.Getenv("OTEL_TRACES_SAMPLER_ARG"))
	if err != nil {
		return nil, err
	}
	exporter, err := newExporter(ctx)
	if err != nil {
		return nil, err
	}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "kapsel"), attribute.String("service.version", version)), resource.WithFromEnv())
	if err != nil {
		return nil, fmt.Errorf("read OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	return &Tracer{log: log, processor: sdktrace.NewBatchSpanProcessor(&patientExporter{SpanExporter: exporter, log: log}), about: about, below: uint64(ratio * (1 << 56))}, nil
}

func newExporter(ctx context.Context) (exporter sdktrace.SpanExporter, err error) {
	switch protocol := firstOf("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); protocol {
	case "", "http/protobuf":
		exporter, err = otlptracehttp.New(ctx)
	case "grpc":
		exporter, err = otlptracegrpc.New(ctx)
	default:
		return nil, fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL %.40q: want http/protobuf (collectors take it on port 4318) or grpc (4317)", protocol)
	}
	if err != nil {
		return nil, fmt.Errorf("make OTLP exporter: %w", err)
	}
	return exporter, nil
}

func firstOf(variables ...string) string {
	for _, name := range variables {
		if value := os.Getenv(name); value != "" {
			return value
		}
	}
	return ""
}

// samplingRatio reads OTEL_TRACES_SAMPLER and its argument. A parent's own decision does not count: sources decide for
// themselves, and there are too many of them.
func samplingRatio(sampler, argument string) (float64, error) {
	switch sampler {
	case "always_on":
		return 1, nil
	case "always_off":
		return 0, nil
	case "", "traceidratio":
	default:
		return 0, fmt.Errorf("OTEL_TRACES_SAMPLER %.40q: want always_on, always_off or traceidratio", sampler)
	}
	if argument == "" {
		return 1, nil
	}
	ratio, err := strconv.ParseFloat(argument, 64)
	if err != nil || !(ratio >= 0 && ratio <= 1) {
		return 0, fmt.Errorf("OTEL_TRACES_SAMPLER_ARG %.40q: want a number from 0 to 1", argument)
	}
	return ratio, nil
}

// Sampled reports whether the good spans of a trace are exported: all of them, on every node, at any time, or none.
func (t *Tracer) Sampled(id TraceID) bool {
	return t != nil && binary.BigEndian.Uint64(id[8:])&(1<<56-1) < t.below
}

// On reports whether anything is exported.
func (t *Tracer) On() bool { return t != nil }

// Tell exports a span. Its slices must not change any more.
//
// A span that is over already needs no SDK that times it, picks its ids and guards it against writers: it goes to the processor
// as it is, at a sixth of the cost.
func (t *Tracer) Tell(s Span) {
	if t == nil {
		return
	}
	if s.ID == (SpanID{}) {
		var id SpanID    // s itself must not escape: then it would be allocated even when nothing is exported
		rand.Read(id[:]) // never fails
		s.ID = id
	}
	ended := tracetest.SpanStub{
		Name: s.Name, SpanKind: s.Kind, StartTime: s.Start, EndTime: s.End, Attributes: s.Attributes, Resource: t.about, InstrumentationScope: scope,
		SpanContext: spanContext(s.TraceID, s.ID, false),
	}
	if s.Parent != (SpanID{}) {
		ended.Parent = spanContext(s.TraceID, s.Parent, true)
	}
	if s.Error != "" {
		ended.Status = sdktrace.Status{Code: codes.Error, Description: s.Error}
	}
	for _, link := range s.Links {
		ended.Links = append(ended.Links, sdktrace.Link{SpanContext: spanContext(link.TraceID, link.SpanID, true)})
	}
	t.processor.OnEnd(ended.Snapshot())
}

var scope = instrumentation.Scope{Name: "github.com/kapsel-dev/kapsel"}

func spanContext(traceID TraceID, spanID SpanID, remote bool) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: spanID, TraceFlags: trace.FlagsSampled, Remote: remote})
}

// Close exports what waits and ends the tracer. A collector that does not answer holds nobody up.
func (t *Tracer) Close(ctx context.Context) {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	if err := t.processor.Shutdown(ctx); err != nil {
		t.log.Warn("the last spans were not exported", "error", err)
	}
}

// patientExporter says now and then that a collector takes nothing, where everything else is said.
type patientExporter struct {
	sdktrace.SpanExporter
	log  *slog.Logger
	said atomic.Int64 // when, in Unix nanoseconds
}

func (e *patientExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	if err != nil {
		now, said := time.Now().UnixNano(), e.said.Load()
		if now-said > int64(exportComplaint) && e.said.CompareAndSwap(said, now) {
			e.log.Warn("spans dropped, the collector did not take them", "spans", len(spans), "error", err)
		}
	}
	return nil
}
