package ledger

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

// An attempt that a listening client makes is recorded by whichever node gets the report. What the leaf will say of it beside
// the result is written down when it is offered, as the leaf's own message.

// EncodeOffer writes down an attempt that has no result yet.
func EncodeOffer(duty Duty, attempt *Attempt) ([]byte, error) {
	return proto.Marshal(attemptLeaf(duty, duty.Attempts+1, attempt))
}

var errNoOffer = errors.New("not what was written of an offered attempt")

// DecodeOffer reads what EncodeOffer wrote. The event has no payload: its size and hash are there.
func DecodeOffer(offer []byte) (Duty, *Attempt, error) {
	leaf := new(leafv1.Attempt)
	if err := proto.Unmarshal(offer, leaf); err != nil {
		return Duty{}, nil, fmt.Errorf("decode offered attempt: %w", err)
	}
	if len(leaf.PayloadSha256) != sha256.Size || len(leaf.RequestHeadersSha256) != sha256.Size || leaf.Number == 0 {
		return Duty{}, nil, errNoOffer
	}
	event := &Event{
		ReceivedAt: leaf.ReceivedAt.AsTime(), Preset: leaf.IntakeVerification,
		BodySHA256: [sha256.Size]byte(leaf.PayloadSha256), AbsentBytes: int64(leaf.PayloadBytes),
	}
	duty := Duty{Event: event, Attempts: int(leaf.Number) - 1}
	attempt := &Attempt{URL: leaf.Url, StartedAt: leaf.StartedAt.AsTime(), RequestHeaders: [sha256.Size]byte(leaf.RequestHeadersSha256)}
	for _, field := range []struct {
		id    *uuid.UUID
		bytes []byte
	}{
		{&event.TenantID, leaf.TenantId}, {&event.ID, leaf.EventId}, {&event.EndpointID, leaf.EndpointId}, {&duty.DeliveryID, leaf.DeliveryId},
		{&duty.DestinationID, leaf.DestinationId}, {&attempt.ID, leaf.AttemptId}, {&attempt.NodeID, leaf.NodeId},
	} {
		id, err := uuid.FromBytes(field.bytes)
		if err != nil {
			return Duty{}, nil, errNoOffer
		}
		*field.id = id
	}
	return duty, attempt, nil
}
