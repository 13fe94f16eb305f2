package ingest

import (
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
)

// SetTracer says who exports spans. It belongs before Run.
func (c *Committer) SetTracer(t *telemetry.Tracer) { c.tracer = t }

// trace exports what became of a batch whose statement began at a moment: of each webhook its intake, which continues the
// source's trace, and its commit. Repeats made no event, and have no span. With a failure all are exported.
func (c *Committer) trace(batch []*pending, outcomes []outcome, began time.Time, failure string) {
	ended := time.Now()
	for i, p := range batch {
		e := p.event
		if failure == "" && outcomes[i].duplicate {
			continue
		}
		traceID, parent := delivery.TraceOf(e.ID, e.Headers)
		if failure == "" && !c.tracer.Sampled(traceID) {
			continue
		}
		span := delivery.IngestSpan(e.ID)
		c.tracer.Tell(telemetry.Span{
			Name: "ingest", Kind: telemetry.Server, TraceID: traceID, ID: span, Parent: parent, Start: e.ReceivedAt, End: ended, Error: failure,
			Attributes: []attribute.KeyValue{
				attribute.String("kapsel.event_id", id.Event.Text(e.ID)), attribute.String("kapsel.endpoint_id", id.Endpoint.Text(e.EndpointID)),
				attribute.String("kapsel.tenant_id", id.Tenant.Text(e.TenantID)), attribute.String("kapsel.verification", e.Preset),
				attribute.Int("http.request.body.size", len(e.Body)), attribute.Int("kapsel.deliveries", len(p.deliveries)),
			},
		})
		c.tracer.Tell(telemetry.Span{
			Name: "commit", TraceID: traceID, Parent: span, Start: began, End: ended, Error: failure,
			Attributes: []attribute.KeyValue{attribute.Int("kapsel.batch", len(batch))},
		})
	}
}
