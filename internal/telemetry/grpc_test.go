package telemetry

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/kapsel-dev/kapsel/internal/certtest"
)

// grpcCollector is an OTLP collector that speaks gRPC.
type grpcCollector struct {
	collectorv1.UnimplementedTraceServiceServer
	address string

	mu       sync.Mutex
	spans    []*tracev1.ResourceSpans
	metadata metadata.MD
}

func (c *grpcCollector) Export(ctx context.Context, request *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans = append(c.spans, request.ResourceSpans...)
	c.metadata, _ = metadata.FromIncomingContext(ctx)
	return new(collectorv1.ExportTraceServiceResponse), nil
}

func serveGRPC(t *testing.T, options ...grpc.ServerOption) *grpcCollector {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &grpcCollector{address: listener.Addr().String()}
	server := grpc.NewServer(options...)
	collectorv1.RegisterTraceServiceServer(server, c)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return c
}

// tell tells one span of which the collector must get every field.
func (c *grpcCollector) tell(t *testing.T) {
	t.Helper()
	tracer, err := NewTracer(t.Context(), "v1.2.3", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	want := Span{Name: "attempt", Kind: Client, TraceID: TraceID{1, 2}, ID: SpanID{3}, Parent: SpanID{4}, Start: time.Unix(100, 0), End: time.Unix(101, 5), Error: "status"}
	tracer.Tell(want)
	tracer.Close(t.Context())
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.spans) != 1 || len(c.spans[0].ScopeSpans) != 1 || len(c.spans[0].ScopeSpans[0].Spans) != 1 {
		t.Fatalf("the collector has %v, want one span", c.spans)
	}
	if about := c.spans[0].Resource.String(); !strings.Contains(about, "kapsel") || !strings.Contains(about, "v1.2.3") {
		t.Errorf("the resource is %s", about)
	}
	got := c.spans[0].ScopeSpans[0].Spans[0]
	if got.Name != want.Name || got.Kind != tracev1.Span_SPAN_KIND_CLIENT || TraceID(got.TraceId) != want.TraceID || SpanID(got.SpanId) != want.ID || SpanID(got.ParentSpanId) != want.Parent ||
		got.StartTimeUnixNano != uint64(want.Start.UnixNano()) || got.EndTimeUnixNano != uint64(want.End.UnixNano()) || got.Status.GetMessage() != want.Error {
		t.Errorf("the collector has %v, want %v", got, want)
	}
}

func TestSpansAreExportedOverGRPC(t *testing.T) {
	c := serveGRPC(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+c.address)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "api-key=secret")
	t.Setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
	c.tell(t)
	if got := c.metadata.Get("api-key"); len(got) != 1 || got[0] != "secret" {
		t.Errorf("metadata %v: want the header", c.metadata)
	}
}

func TestSpansAreExportedOverGRPCWithTLS(t *testing.T) {
	authority := certtest.New(t)
	pair := authority.Issue(t, "127.0.0.1")
	c := serveGRPC(t, grpc.Creds(credentials.NewServerTLSFromCert(&pair.TLS)))
	file := filepath.Join(t.TempDir(), "authority.pem")
	if err := os.WriteFile(file, authority.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://"+c.address)
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc")
	t.Setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", file)
	c.tell(t)
}
