package ledger

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

// maxDiagnosisBytes bounds what is stored for people about one attempt.
const maxDiagnosisBytes = 1000

// batch is some results as the arrays of one statement.
type batch struct {
	results []Result
	// leafOf is the id of the leaf that stands for results[i]: its attempt's, else its dead letter's.
	leafOf []uuid.UUID
	params store.RecordAttemptsParams
}

// newBatch encodes the results. With an error, a panic's too, the batch is incomplete, but names its results.
func newBatch(nodeID uuid.UUID, logID int32, results []Result) (b *batch, err error) {
	b = &batch{results: results, leafOf: make([]uuid.UUID, len(results))}
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("encode leaves: %w: %v", errPanicked, panicked)
		}
	}()
	b.params.NodeID, b.params.LogID = nodeID, logID
	b.grow(len(results))
	yielding := yieldingTo(nodeID, results)
	for i := range results {
		r := &results[i]
		if slices.Contains(yielding, i) {
			r = new(results[i].undecided(true))
		}
		if err := b.add(i, r); err != nil {
			return b, fmt.Errorf("leaf of delivery %s: %w", id.Delivery.Text(results[i].Duty.DeliveryID), err)
		}
	}
	return b, nil
}

func (b *batch) grow(n int) {
	p := &b.params
	p.TenantIds, p.DeliveryIds = make([]uuid.UUID, 0, n), make([]uuid.UUID, 0, n)
	p.AttemptsBefore, p.AttemptsAfter = make([]int32, 0, n), make([]int32, 0, n)
	p.Closes, p.WaitSeconds = make([]bool, 0, n), make([]float64, 0, n)
	p.LeafIds, p.LeafTenantIds = make([]uuid.UUID, 0, n), make([]uuid.UUID, 0, n)
	p.LeafDeliveryIds, p.LeafEventIds = make([]uuid.UUID, 0, n), make([]uuid.UUID, 0, n)
	p.LeafOutcomes, p.LeafFenced = make([]int16, 0, n), make([]bool, 0, n)
	p.LeafBytes, p.LeafExcerpts = make([][]byte, 0, n), make([][]byte, 0, n)
	p.LeafDiagnoses = make([]string, 0, n)
}

func (b *batch) add(i int, r *Result) error {
	duty, event := r.Duty, r.Duty.Event
	attempts := duty.Attempts
	decided := r.Verdict != (Verdict{}) && (r.Attempt == nil || !r.Attempt.Late)
	if r.Attempt != nil {
		attempts++
		leaf, err := EncodeAttempt(attemptLeaf(duty, attempts, r.Attempt))
		if err != nil {
			return err
		}
		var excerpt []byte
		if r.Attempt.Response != nil {
			excerpt = r.Attempt.Response.Excerpt
		}
		b.leafOf[i] = r.Attempt.ID
		b.addLeaf(r.Attempt.ID, duty, int16(r.Attempt.Outcome), leaf, store.CleanText(r.Attempt.Diagnosis, maxDiagnosisBytes), excerpt, decided)
	}
	if !decided {
		return nil
	}

	p := &b.params
	p.TenantIds = append(p.TenantIds, event.TenantID)
	p.DeliveryIds = append(p.DeliveryIds, duty.DeliveryID)
	p.AttemptsBefore = append(p.AttemptsBefore, int32(duty.Attempts))
	p.AttemptsAfter = append(p.AttemptsAfter, int32(attempts))
	p.Closes = append(p.Closes, r.Verdict.RetryAt.IsZero())
	// A wait, and not a moment: when it is over is the database's clock's to say, as for everything that is due.
	p.WaitSeconds = append(p.WaitSeconds, max(0, time.Until(r.Verdict.RetryAt)).Seconds())

	if r.Verdict.Dead != leafv1.DeadLetterReason_DEAD_LETTER_REASON_UNSPECIFIED {
		return b.bury(i, r, attempts)
	}
	return nil
}

func (b *batch) bury(i int, r *Result, attempts int) error {
	duty, event := r.Duty, r.Duty.Event
	diagnosis := store.CleanText(r.Verdict.Diagnosis, maxDiagnosisBytes)
	digest := sha256.Sum256([]byte(diagnosis))
	letter := &leafv1.DeadLetter{
		EventId: event.ID[:], TenantId: event.TenantID[:], EndpointId: event.EndpointID[:],
		Reason: r.Verdict.Dead, Attempts: uint32(attempts),
		PayloadSha256: event.BodySHA256[:], PayloadBytes: event.payloadBytes(),
		ReceivedAt: timestamppb.New(event.ReceivedAt), DeadAt: timestamppb.Now(),
		DiagnosisSha256: digest[:], NodeId: b.params.NodeID[:],
	}
	if duty.DestinationID != uuid.Nil {
		letter.DeliveryId, letter.DestinationId = duty.DeliveryID[:], duty.DestinationID[:]
	}
	leaf, err := EncodeDeadLetter(letter)
	if err != nil {
		return err
	}
	leafID := id.New()
	if r.Attempt == nil {
		b.leafOf[i] = leafID
	}
	b.addLeaf(leafID, duty, 0, leaf, diagnosis, nil, true)

	p := &b.params
	p.DeadTenantIds = append(p.DeadTenantIds, event.TenantID)
	p.DeadLetterIds = append(p.DeadLetterIds, duty.DeliveryID)
	p.DeadLeafIds = append(p.DeadLeafIds, leafID)
	p.DeadEventIds = append(p.DeadEventIds, event.ID)
	p.DeadEndpointIds = append(p.DeadEndpointIds, event.EndpointID)
	p.DeadDestinationIds = append(p.DeadDestinationIds, duty.DestinationID)
	p.DeadReasons = append(p.DeadReasons, int16(r.Verdict.Dead))
	p.DeadAttempts = append(p.DeadAttempts, int32(attempts))
	p.DeadDiagnoses = append(p.DeadDiagnoses, diagnosis)
	return nil
}

func (b *batch) addLeaf(leafID uuid.UUID, duty Duty, outcome int16, leaf []byte, diagnosis string, excerpt []byte, fenced bool) {
	if excerpt == nil {
		excerpt = []byte{}
	}
	p := &b.params
	p.LeafIds = append(p.LeafIds, leafID)
	p.LeafTenantIds = append(p.LeafTenantIds, duty.Event.TenantID)
	p.LeafDeliveryIds = append(p.LeafDeliveryIds, duty.DeliveryID)
	p.LeafEventIds = append(p.LeafEventIds, duty.Event.ID)
	p.LeafOutcomes = append(p.LeafOutcomes, outcome)
	p.LeafBytes = append(p.LeafBytes, leaf)
	p.LeafDiagnoses = append(p.LeafDiagnoses, diagnosis)
	p.LeafExcerpts = append(p.LeafExcerpts, excerpt)
	p.LeafFenced = append(p.LeafFenced, fenced)
}

func attemptLeaf(duty Duty, number int, a *Attempt) *leafv1.Attempt {
	event := duty.Event
	leaf := &leafv1.Attempt{
		AttemptId: a.ID[:], DeliveryId: duty.DeliveryID[:], EventId: event.ID[:], TenantId: event.TenantID[:],
		EndpointId: event.EndpointID[:], DestinationId: duty.DestinationID[:],
		Number:        uint32(number),
		PayloadSha256: event.BodySHA256[:], PayloadBytes: event.payloadBytes(),
		Url:        a.URL,
		ReceivedAt: timestamppb.New(event.ReceivedAt),
		Outcome:    a.Outcome, Failure: a.Failure, StatusCode: uint32(a.StatusCode),
		NodeId: a.NodeID[:], IntakeVerification: event.Preset, Late: a.Late,
	}
	if !a.StartedAt.IsZero() {
		leaf.StartedAt, leaf.Duration = timestamppb.New(a.StartedAt), durationpb.New(a.Duration)
	}
	if a.RequestHeaders != [sha256.Size]byte{} {
		leaf.RequestHeadersSha256 = a.RequestHeaders[:]
	}
	if a.Response != nil {
		leaf.ResponseSha256 = a.Response.SHA256[:]
		leaf.ResponseBytes, leaf.ResponseTruncated = uint64(a.Response.Bytes), a.Response.Truncated
	}
	return leaf
}
