// Package ledger records what became of each attempt: the recorder turns results into leaves and commits them in
// batches, each batch in one transaction with its leaf indexes, its changes of the queue and its dead letters.
//
// It stands between delivery and the log: delivery hands it results, the sealer reads the rows that it wrote. Invariants
// (docs/architecture.md): an attempt that may have reached the network has a leaf; leaf indexes are dense; a result
// changes the queue only while its node holds the lease.
package ledger

import (
	"crypto/sha256"
	"time"

	"github.com/google/uuid"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// Event is what a delivery carries, shared by all deliveries of the event. It is never changed.
type Event struct {
	TenantID, ID, EndpointID uuid.UUID
	ReceivedAt               time.Time
	Body                     []byte
	// Headers are the original header lines, "Name: value\r\n" each.
	Headers     []byte
	ContentType string
	// Type is the event type, empty when unknown.
	Type string
	// Preset is the name of the verification that the event passed.
	Preset string
	// Defect says why the event cannot be delivered; empty when it can.
	Defect     string
	BodySHA256 [sha256.Size]byte
	// AbsentBytes is the size of a payload that was erased, or is not at hand: Body is nil then.
	AbsentBytes int64
}

func (e *Event) payloadBytes() uint64 { return uint64(len(e.Body)) + uint64(e.AbsentBytes) }

// Duty is the duty to deliver an event, as this node holds it.
type Duty struct {
	Event *Event
	// DeliveryID is the key of the queue's row.
	DeliveryID uuid.UUID
	// DestinationID is uuid.Nil for an event with a defect: what is due is its dead letter.
	DestinationID uuid.UUID
	// Attempts recorded so far.
	Attempts int
}

// Attempt is what one try came to.
type Attempt struct {
	ID  uuid.UUID
	URL string
	// NodeID is the node that made the attempt.
	NodeID uuid.UUID
	// StartedAt is zero when not known.
	StartedAt      time.Time
	Duration       time.Duration
	Outcome        leafv1.Outcome
	Failure        leafv1.Failure
	StatusCode     int
	RequestHeaders [sha256.Size]byte
	Response       *Response
	// TraceID and SpanID are what the destination was told of the trace (W3C Trace Context). Zero: nothing was sent.
	TraceID [16]byte
	SpanID  [8]byte
	// RetryAfter is how long the destination asked to be left alone (429, 503); zero when it did not.
	RetryAfter time.Duration
	// Diagnosis is for people; the log does not hold it.
	Diagnosis string
	// Late says that the node had lost the lease when the result came: it is recorded, and changes nothing else. Whoever
	// makes the attempt sets it when the lease has run out; that others took the lease away, the recorder finds out.
	Late bool
}

// Response is what was read of a response.
type Response struct {
	SHA256    [sha256.Size]byte
	Bytes     int64
	Truncated bool
	// Excerpt is its beginning, for people.
	Excerpt []byte
}

// Verdict is what follows an attempt: one of Delivered, RetryAt and Dead is set. The zero value decides nothing: the attempt
// is recorded, and that is all.
type Verdict struct {
	// Delivered closes the delivery.
	Delivered bool
	// RetryAt puts it back into the queue.
	RetryAt time.Time
	// Dead closes it with a dead letter.
	Dead leafv1.DeadLetterReason
	// Diagnosis of a dead letter.
	Diagnosis string
	// Disable ends deliveries to the destination, beside what becomes of this one. The zero value leaves it as it is.
	Disable Disable
}

// Disable says that a destination may not be delivered to any more, and why.
type Disable struct {
	Reason kapselv1.DisableReason
	// Detail is for people: the last error and what to do.
	Detail string
}

// Result is an attempt and its verdict. Attempt is nil when an event is given up without one.
type Result struct {
	Duty    Duty
	Attempt *Attempt
	Verdict Verdict
	// Recorded is called when the result is committed. It must not block.
	Recorded func(leafIndex int64)
}
