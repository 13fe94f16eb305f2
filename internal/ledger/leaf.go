package ledger

import (
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

// Bounds of a leaf. What they refuse could not be described or verified later, when it can't be corrected any more.
const (
	leafNonceBytes        = 16
	leafIDBytes           = 16
	maxLeafURLBytes       = 2048
	maxVerificationBytes  = 64
	maxLeafStatus         = 999
	maxLeafPayloadBytes   = 1<<53 - 1 // the largest integer that every reader of JSON takes exactly
	maxLeafDurationNanos  = 1<<53 - 1 // 104 days
	maxLeafResponseLength = 1<<53 - 1
)

// EncodeAttempt returns the leaf of an attempt: the bytes that are hashed, stored and shipped. Each call adds 16 new
// random bytes, so the same attempt never gives the same leaf twice. It keeps no reference to a.
func EncodeAttempt(a *leafv1.Attempt) ([]byte, error) {
	if err := checkAttempt(a); err != nil {
		return nil, fmt.Errorf("encode attempt leaf: %w", err)
	}
	return encodeLeaf(&leafv1.Leaf{Kind: &leafv1.Leaf_Attempt{Attempt: a}})
}

// EncodeDeadLetter returns the leaf of a dead letter, as EncodeAttempt does that of an attempt.
func EncodeDeadLetter(d *leafv1.DeadLetter) ([]byte, error) {
	if err := checkDeadLetter(d); err != nil {
		return nil, fmt.Errorf("encode dead letter leaf: %w", err)
	}
	return encodeLeaf(&leafv1.Leaf{Kind: &leafv1.Leaf_DeadLetter{DeadLetter: d}})
}

// EncodeErasure returns the leaf of an erasure, with a fresh nonce: the bytes that are stored and hashed.
func EncodeErasure(e *leafv1.Erasure) ([]byte, error) {
	var c checker
	c.size("erasure_id", e.GetErasureId(), leafIDBytes)
	c.size("tenant_id", e.GetTenantId(), leafIDBytes)
	c.sizeOrEmpty("event_id", e.GetEventId(), leafIDBytes)
	c.size("node_id", e.GetNodeId(), leafIDBytes)
	c.sizeOrEmpty("reason_sha256", e.GetReasonSha256(), sha256.Size)
	c.between("number of leaf_indexes", uint64(len(e.GetLeafIndexes())), 0, maxErasedLeaves)
	c.time("erased_at", e.GetErasedAt())
	if c.err != nil {
		return nil, fmt.Errorf("encode erasure leaf: %w", c.err)
	}
	return encodeLeaf(&leafv1.Leaf{Kind: &leafv1.Leaf_Erasure{Erasure: e}})
}

func encodeLeaf(leaf *leafv1.Leaf) ([]byte, error) {
	leaf.Nonce = make([]byte, leafNonceBytes)
	rand.Read(leaf.Nonce) // never fails; the runtime reads the kernel's generator without a system call
	data, err := proto.Marshal(leaf)
	if err != nil {
		return nil, fmt.Errorf("encode leaf: %w", err)
	}
	return data, nil
}

func checkAttempt(a *leafv1.Attempt) error {
	var c checker
	c.size("attempt_id", a.GetAttemptId(), leafIDBytes)
	c.size("delivery_id", a.GetDeliveryId(), leafIDBytes)
	c.size("event_id", a.GetEventId(), leafIDBytes)
	c.size("tenant_id", a.GetTenantId(), leafIDBytes)
	c.size("endpoint_id", a.GetEndpointId(), leafIDBytes)
	c.size("destination_id", a.GetDestinationId(), leafIDBytes)
	c.size("node_id", a.GetNodeId(), leafIDBytes)
	c.size("payload_sha256", a.GetPayloadSha256(), sha256.Size)
	c.sizeOrEmpty("request_headers_sha256", a.GetRequestHeadersSha256(), sha256.Size)
	c.sizeOrEmpty("response_sha256", a.GetResponseSha256(), sha256.Size)
	c.text("url", a.GetUrl(), maxLeafURLBytes)
	c.text("intake_verification", a.GetIntakeVerification(), maxVerificationBytes)
	c.between("number", uint64(a.GetNumber()), 1, 1<<32-1)
	c.between("payload_bytes", a.GetPayloadBytes(), 0, maxLeafPayloadBytes)
	c.between("response_bytes", a.GetResponseBytes(), 0, maxLeafResponseLength)
	c.between("status_code", uint64(a.GetStatusCode()), 0, maxLeafStatus)
	c.between("outcome", uint64(a.GetOutcome()), 1, uint64(leafv1.Outcome_OUTCOME_UNKNOWN))
	c.between("failure", uint64(a.GetFailure()), 0, uint64(leafv1.Failure_FAILURE_AUTHORIZATION))
	c.time("received_at", a.GetReceivedAt())
	if a.GetStartedAt() != nil {
		c.time("started_at", a.GetStartedAt())
	}
	c.duration("duration", a.GetDuration())
	return c.err
}

func checkDeadLetter(d *leafv1.DeadLetter) error {
	var c checker
	c.sizeOrEmpty("delivery_id", d.GetDeliveryId(), leafIDBytes)
	c.size("event_id", d.GetEventId(), leafIDBytes)
	c.size("tenant_id", d.GetTenantId(), leafIDBytes)
	c.size("endpoint_id", d.GetEndpointId(), leafIDBytes)
	c.sizeOrEmpty("destination_id", d.GetDestinationId(), leafIDBytes)
	c.size("node_id", d.GetNodeId(), leafIDBytes)
	c.size("payload_sha256", d.GetPayloadSha256(), sha256.Size)
	c.size("diagnosis_sha256", d.GetDiagnosisSha256(), sha256.Size)
	c.between("reason", uint64(d.GetReason()), 1, uint64(leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXPIRED))
	c.between("payload_bytes", d.GetPayloadBytes(), 0, maxLeafPayloadBytes)
	c.time("received_at", d.GetReceivedAt())
	c.time("dead_at", d.GetDeadAt())
	return c.err
}

// checker keeps the first field that is out of bounds. It names the field and no value: a URL may hold a secret.
type checker struct{ err error }

func (c *checker) fail(format string, arguments ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(format, arguments...)
	}
}

func (c *checker) size(name string, value []byte, want int) {
	if len(value) != want {
		c.fail("%s has %d bytes: want %d", name, len(value), want)
	}
}

func (c *checker) sizeOrEmpty(name string, value []byte, want int) {
	if len(value) != 0 {
		c.size(name, value, want)
	}
}

func (c *checker) text(name, value string, limit int) {
	if len(value) > limit {
		c.fail("%s has %d bytes: at most %d", name, len(value), limit)
	}
	if !utf8.ValidString(value) {
		c.fail("%s is not valid UTF-8", name)
	}
}

func (c *checker) between(name string, value, low, high uint64) {
	if value < low || value > high {
		c.fail("%s is %d: want %d to %d", name, value, low, high)
	}
}

func (c *checker) time(name string, value *timestamppb.Timestamp) {
	if !value.IsValid() {
		c.fail("%s is missing or not a time", name)
	}
}

func (c *checker) duration(name string, value *durationpb.Duration) {
	if value == nil {
		return
	}
	if nanos := value.AsDuration().Nanoseconds(); !value.IsValid() || nanos < 0 || nanos > maxLeafDurationNanos {
		c.fail("%s is negative or too long", name)
	}
}
