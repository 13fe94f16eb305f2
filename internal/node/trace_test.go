package node

import (
	"cmp"
	"encoding/hex"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
)

// collector is an OTLP collector: it takes what exporters post to /v1/traces.
type collector struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracev1.Span
	raw   strings.Builder
}

func newCollector(t testing.TB) *collector {
	c := new(collector)
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var request collectorv1.ExportTraceServiceRequest
		if err := proto.Unmarshal(body, &request); err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL, err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw.Write(body)
		for _, resource := range request.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				c.spans = append(c.spans, scope.Spans...)
			}
		}
		answer, _ := proto.Marshal(new(collectorv1.ExportTraceServiceResponse))
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.Write(answer)
	}))
	t.Cleanup(c.Close)
	return c
}

// text is all that was ever posted.
func (c *collector) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.raw.String()
}

// tracer makes a tracer as the environment of a process would have it.
func (c *collector) tracer(t *testing.T, ratio string) *telemetry.Tracer {
	t.Helper()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", c.URL)
	t.Setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
	tracer, err := telemetry.NewTracer(t.Context(), "test", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return tracer
}

// of returns the spans of a trace by name, in the order of their start.
func (c *collector) of(traceID string) map[string][]*tracev1.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	spans := make(map[string][]*tracev1.Span)
	for _, span := range c.spans {
		if traceID == "" || hex.EncodeToString(span.TraceId) == traceID {
			spans[span.Name] = append(spans[span.Name], span)
		}
	}
	for _, same := range spans {
		slices.SortFunc(same, func(a, b *tracev1.Span) int {
			if a.Name == "lease" { // they end with their attempts, and begin when the claim was asked for, which can have been early
				return cmp.Compare(a.EndTimeUnixNano, b.EndTimeUnixNano)
			}
			return cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano)
		})
	}
	return spans
}

func said(span *tracev1.Span, key string) string {
	for _, pair := range span.Attributes {
		if pair.Key == key {
			return strings.Trim(strings.TrimPrefix(pair.Value.String(), "string_value:"), `"`)
		}
	}
	return ""
}

const sourceTrace, sourceSpan = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

func (r *rig) postTraced(n *Node, key string) {
	r.t.Helper()
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, n.URL()+"/ingest/"+id.Endpoint.Text(r.endpoint), strings.NewReader("{}"))
	if err != nil {
		r.t.Fatal(err)
	}
	request.Header.Set("Traceparent", "00-"+sourceTrace+"-"+sourceSpan+"-01")
	request.Header.Set("Idempotency-Key", key)
	response, err := client.Do(request)
	if err != nil {
		r.t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusAccepted {
		r.t.Fatalf("status %d", response.StatusCode)
	}
}

func TestOneTraceShowsAWebhooksWholeWay(t *testing.T) {
	c := newCollector(t)
	r, n := one(t, func(config *Config) { config.Tracer = c.tracer(t, "1") })
	var parents []string
	r.sink.answers(func(request *http.Request, _ string, seen int) int {
		parents = append(parents, request.Header.Get("Traceparent")) // one attempt after the other
		if seen == 1 {
			return http.StatusServiceUnavailable
		}
		return http.StatusOK
	})
	r.postTraced(n, "traced")
	var spans map[string][]*tracev1.Span
	eventually(t, "both attempts and their seals are exported", func() bool {
		spans = c.of(sourceTrace)
		return len(spans["attempt"]) == 2 && len(spans["seal"]) == 2
	})
	if len(spans["ingest"]) != 1 || len(spans["commit"]) != 1 || len(spans["lease"]) != 2 {
		t.Fatalf("spans: %v", spans)
	}
	ingest, commit := spans["ingest"][0], spans["commit"][0]
	if hex.EncodeToString(ingest.ParentSpanId) != sourceSpan {
		t.Errorf("intake's parent is %x, want the source's span", ingest.ParentSpanId)
	}
	below := func(child, parent *tracev1.Span) {
		t.Helper()
		if string(child.ParentSpanId) != string(parent.SpanId) {
			t.Errorf("the parent of %s is %x, want %s (%x)", child.Name, child.ParentSpanId, parent.Name, parent.SpanId)
		}
		if child.EndTimeUnixNano < child.StartTimeUnixNano {
			t.Errorf("%s ends before it starts", child.Name)
		}
	}
	below(commit, ingest)
	eventID := said(ingest, "kapsel.event_id")
	for i, attempt := range spans["attempt"] {
		below(spans["lease"][i], ingest)
		below(attempt, spans["lease"][i])
		below(spans["seal"][i], attempt)
		if want := "00-" + sourceTrace + "-" + hex.EncodeToString(attempt.SpanId) + "-01"; parents[i] != want {
			t.Errorf("attempt %d told its destination %q, want %q", i+1, parents[i], want)
		}
		if said(attempt, "kapsel.event_id") != eventID || eventID == "" {
			t.Errorf("attempt %d is of event %q, want %q", i+1, said(attempt, "kapsel.event_id"), eventID)
		}
		if len(attempt.Links) != 1 || string(attempt.Links[0].SpanId) != string(ingest.SpanId) {
			t.Errorf("attempt %d is linked to %v", i+1, attempt.Links)
		}
	}
	first, second := spans["attempt"][0], spans["attempt"][1]
	if first.Status.GetCode() != tracev1.Status_STATUS_CODE_ERROR || first.Status.GetMessage() != "status" || said(first, "http.response.status_code") != "int_value:503" {
		t.Errorf("the first attempt: %v %v", first.Status, first.Attributes)
	}
	if second.Status.GetCode() == tracev1.Status_STATUS_CODE_ERROR {
		t.Errorf("the second attempt: %v", second.Status)
	}
	// The seal is linked to the signing of the head, which is a trace of its own.
	eventually(t, "the head's span is exported", func() bool {
		link := spans["seal"][1].Links[0]
		for _, head := range c.of(hex.EncodeToString(link.TraceId))["sign tree head"] {
			if string(head.SpanId) == string(link.SpanId) {
				return true
			}
		}
		return false
	})
}

func TestFailuresAreExportedWhateverIsSampled(t *testing.T) {
	c := newCollector(t)
	r, n := one(t, func(config *Config) { config.Tracer = c.tracer(t, "0") })
	r.sink.answers(func(_ *http.Request, _ string, seen int) int {
		if seen == 1 {
			return http.StatusInternalServerError
		}
		return http.StatusOK
	})
	r.postTraced(n, "fails once")
	eventually(t, "it is delivered", func() bool { return r.count("select count(*) from attempts") == 2 })
	r.stop(n) // which exports what waits
	spans := c.of(sourceTrace)
	if len(spans["attempt"]) != 1 || said(spans["attempt"][0], "error.type") != "status" || len(spans["ingest"]) != 0 || len(spans["seal"]) != 1 {
		t.Errorf("spans: %v", spans)
	}
}

func TestCollectorThatIsAwayHoldsNothingUp(t *testing.T) {
	for _, protocol := range []string{"http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
			c := newCollector(t)
			c.Close()
			r, n := one(t, func(config *Config) { config.Tracer = c.tracer(t, "1") })
			r.load(50, 0, func(int) *Node { return n })
			eventually(t, "all are delivered", func() bool { return r.count("select count(*) from attempts") == 50 })
			began := time.Now()
			r.stop(n)
			if took := time.Since(began); took > 15*time.Second {
				t.Errorf("the stop took %v", took)
			}
		})
	}
}
