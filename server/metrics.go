package server

import (
	"context"
	"errors"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect/v2"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
)

// ingestMetrics are the instruments of /ingest.
type ingestMetrics struct {
	requests *telemetry.Counter
	taken    *telemetry.Count
	unproved *telemetry.Counter
	// by class of the status: 2xx at index 2
	durations [6]*telemetry.Timer
}

func newIngestMetrics(m *telemetry.Meter) ingestMetrics {
	t := ingestMetrics{
		requests: m.Counter("kapsel.ingest.requests", "Requests of /ingest, by status and, of those that were refused, by reason."),
		unproved: m.Counter("kapsel.ingest.unproved", "Webhooks whose signature was missing or wrong, by preset and reason."),
	}
	t.taken = t.requests.With("code", "202", "reason", "")
	// What alerts look at is there from the start, so that its first time counts.
	for status, reasons := range map[int][]kapselv1.ErrorReason{
		http.StatusTooManyRequests:     {kapselv1.ErrorReason_ERROR_REASON_RATE_LIMITED, kapselv1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED},
		http.StatusInternalServerError: {kapselv1.ErrorReason_ERROR_REASON_INTERNAL},
		http.StatusServiceUnavailable:  {kapselv1.ErrorReason_ERROR_REASON_OVERLOADED, kapselv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE},
	} {
		for _, reason := range reasons {
			t.requests.With("code", strconv.Itoa(status), "reason", reasonLabel(reason))
		}
	}
	durations := m.FastHistogram("kapsel.ingest.duration", "From the whole request of a webhook to its answer, by class of the status.")
	for class := 2; class < len(t.durations); class++ {
		t.durations[class] = durations.With("class", strconv.Itoa(class)+"xx")
	}
	return t
}

// handshaken stands for a request that was no webhook, and was answered.
var handshaken = &problem{status: http.StatusOK}

// answered counts a request. Nil: it was taken, with a 202.
func (m *ingestMetrics) answered(p *problem, took time.Duration) {
	if p == nil {
		m.taken.Add(1)
		m.durations[2].Record(took)
		return
	}
	if m.requests == nil {
		return
	}
	m.requests.With("code", strconv.Itoa(p.status), "reason", reasonLabel(p.reason)).Add(1)
	m.durations[p.status/100].Record(took)
}

// reasonLabel is the reason as a label: empty where there is none.
func reasonLabel(reason kapselv1.ErrorReason) string {
	if reason == kapselv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(reasonText(reason))
}

// callMetrics are the instruments of the API.
type callMetrics struct {
	calls     *telemetry.Counter
	durations *telemetry.Histogram
}

func newCallMetrics(m *telemetry.Meter) *callMetrics {
	return &callMetrics{
		calls:     m.Counter("kapsel.rpc.calls", "Calls of the API that ended, by service, method and code."),
		durations: m.FastHistogram("kapsel.rpc.duration", "How long calls of the API took, streams excepted, by service and method."),
	}
}

// know shows a method from the start, and how it fails by our fault.
func (m *callMetrics) know(spec connect.Spec) {
	service, method := names(spec)
	for _, code := range []string{"ok", connect.CodeUnavailable.String(), connect.CodeInternal.String()} {
		m.calls.With("service", service, "method", method, "code", code)
	}
}

func names(spec connect.Spec) (service, method string) {
	return strings.TrimPrefix(path.Base(path.Dir(spec.Procedure)), "kapsel.v1."), path.Base(spec.Procedure)
}

// measure is the interceptor around all others: it counts calls by method and code, and times all but streams. Only what is
// registered gets here.
func (m *callMetrics) measure(next connect.ServerFunc) connect.ServerFunc {
	if m.calls == nil {
		return next
	}
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		began := time.Now()
		err := next(ctx, spec, stream)
		code := "ok"
		var coded *connect.Error
		switch {
		case errors.As(err, &coded):
			code = coded.Code().String()
		case err != nil:
			code = connect.CodeUnknown.String()
		}
		service, method := names(spec)
		m.calls.With("service", service, "method", method, "code", code).Add(1)
		if spec.StreamType == connect.StreamTypeUnary {
			m.durations.With("service", service, "method", method).Record(time.Since(began))
		}
		return err
	}
}

// counted counts the answers of the public log by class of their status.
func counted(m *telemetry.Meter, next http.Handler) http.Handler {
	if m == nil {
		return next
	}
	requests := m.Counter("kapsel.log.requests", "Requests of the public log (checkpoints and tiles), by class of the status.")
	var classes [6]*telemetry.Count
	for class := 2; class < len(classes); class++ {
		classes[class] = requests.With("class", strconv.Itoa(class)+"xx")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		noted := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(noted, r)
		classes[noted.status/100].Add(1)
	})
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
