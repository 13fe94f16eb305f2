package delivery

import (
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
)

// Recorded is an attempt whose leaf waits for its seal, and whose trace is exported.
type Recorded struct {
	Span      telemetry.Link
	LeafIndex int64
	At        time.Time
}

// TraceOf is the trace that an event belongs to, and the span of its source; a zero parent without one. It is read from the
// event's own headers, so that it is known for as long as the event is.
func TraceOf(eventID uuid.UUID, lines []byte) (id telemetry.TraceID, parent telemetry.SpanID) {
	t := traceOf(eventID, lines)
	return t.id, t.parent
}

// IngestSpan is the span of an event's intake: what happens to the event later, on whichever node, hangs below it.
func IngestSpan(eventID uuid.UUID) (span telemetry.SpanID) {
	copy(span[:], eventID[8:]) // the random part of a UUIDv7, never zero
	return span
}

// SetTracer says who exports spans, and who is told of attempts that wait for their seal. It belongs before anything is held.
func (d *Dispatcher) SetTracer(t *telemetry.Tracer, recorded func(Recorded)) {
	d.tracer, d.recorded = t, recorded
}

// trace exports a lease and the attempt that was made under it, and returns what is to be called when that is recorded. A
// failed one is always exported, a good one if its trace is sampled.
func (d *Dispatcher) trace(job Job, attempt *ledger.Attempt, done func(int64)) func(leafIndex int64) {
	failed := attempt.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED
	if failed && attempt.SpanID == [8]byte{} { // there was no request
		attempt.TraceID, attempt.SpanID = traceOf(job.Event.ID, job.Event.Headers).id, randomSpan()
	}
	if !failed && !d.tracer.Sampled(attempt.TraceID) {
		return done
	}
	span := telemetry.Link{TraceID: attempt.TraceID, SpanID: attempt.SpanID}
	ids := []attribute.KeyValue{
		attribute.String("kapsel.event_id", id.Event.Text(job.Event.ID)), attribute.String("kapsel.delivery_id", id.Delivery.Text(job.DeliveryID)),
		attribute.String("kapsel.destination_id", id.Destination.Text(job.DestinationID)), attribute.Int("kapsel.attempt", job.Attempts+1),
	}
	lease := telemetry.SpanID(randomSpan())
	d.tracer.Tell(telemetry.Span{
		Name: "lease", TraceID: attempt.TraceID, ID: lease, Parent: IngestSpan(job.Event.ID),
		Start: job.LeaseEnds.Add(-DefaultLease), End: attempt.StartedAt, Attributes: ids,
	})
	told := telemetry.Span{
		Name: "attempt", Kind: telemetry.Client, TraceID: attempt.TraceID, ID: attempt.SpanID, Parent: lease,
		Start: attempt.StartedAt, End: attempt.StartedAt.Add(attempt.Duration),
		Attributes: append(ids, attribute.String("kapsel.attempt_id", id.Attempt.Text(attempt.ID)), attribute.String("http.request.method", "POST")),
		// The webhook may have come days ago: whoever looks at this span alone finds the way back.
		Links: []telemetry.Link{{TraceID: attempt.TraceID, SpanID: IngestSpan(job.Event.ID)}},
	}
	if attempt.StatusCode != 0 {
		told.Attributes = append(told.Attributes, attribute.Int("http.response.status_code", attempt.StatusCode))
	}
	if failed {
		told.Error = label(attempt.Failure.String(), "FAILURE_") // a class, and nothing that the destination said
		told.Attributes = append(told.Attributes, attribute.String("error.type", told.Error))
	}
	d.tracer.Tell(told)
	return func(leafIndex int64) {
		done(leafIndex)
		if leafIndex >= 0 {
			d.recorded(Recorded{Span: span, LeafIndex: leafIndex, At: time.Now()})
		}
	}
}
