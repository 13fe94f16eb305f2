package verify

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.jetify.com/typeid/base32"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
)

// timeLayout is RFC 3339 with nanoseconds, always nine digits.
const timeLayout = "2006-01-02T15:04:05.000000000Z07:00"

const (
	nonceBytes = 16
	idBytes    = 16
	maxStatus  = 999
)

// attemptText is an attempt for people. The order of fields and their spelling are frozen; a field that is added to the
// leaf is added here so that it is left out when not set, and old leaves keep their description.
type attemptText struct {
	Kind                 string `json:"kind"`
	AttemptID            string `json:"attempt_id"`
	DeliveryID           string `json:"delivery_id"`
	EventID              string `json:"event_id"`
	TenantID             string `json:"tenant_id"`
	EndpointID           string `json:"endpoint_id"`
	DestinationID        string `json:"destination_id"`
	Number               uint32 `json:"number"`
	PayloadSHA256        string `json:"payload_sha256"`
	PayloadBytes         uint64 `json:"payload_bytes"`
	URL                  string `json:"url"`
	ReceivedAt           string `json:"received_at"`
	StartedAt            string `json:"started_at,omitempty"`
	DurationNS           *int64 `json:"duration_ns,omitempty"`
	Outcome              string `json:"outcome"`
	Failure              string `json:"failure,omitempty"`
	StatusCode           uint32 `json:"status_code,omitempty"`
	RequestHeadersSHA256 string `json:"request_headers_sha256,omitempty"`
	ResponseSHA256       string `json:"response_sha256,omitempty"`
	ResponseBytes        uint64 `json:"response_bytes"`
	ResponseTruncated    bool   `json:"response_truncated"`
	NodeID               string `json:"node_id"`
	IntakeVerification   string `json:"intake_verification"`
	Late                 bool   `json:"late"`
	Nonce                string `json:"nonce"`
}

// deadLetterText is a dead letter for people, frozen like attemptText.
type deadLetterText struct {
	Kind            string `json:"kind"`
	DeliveryID      string `json:"delivery_id,omitempty"`
	EventID         string `json:"event_id"`
	TenantID        string `json:"tenant_id"`
	EndpointID      string `json:"endpoint_id"`
	DestinationID   string `json:"destination_id,omitempty"`
	Reason          string `json:"reason"`
	Attempts        uint32 `json:"attempts"`
	PayloadSHA256   string `json:"payload_sha256"`
	PayloadBytes    uint64 `json:"payload_bytes"`
	ReceivedAt      string `json:"received_at"`
	DeadAt          string `json:"dead_at"`
	DiagnosisSHA256 string `json:"diagnosis_sha256"`
	NodeID          string `json:"node_id"`
	Nonce           string `json:"nonce"`
}

// erasureText is an erasure for people, frozen like attemptText.
type erasureText struct {
	Kind         string   `json:"kind"`
	ErasureID    string   `json:"erasure_id"`
	EventID      string   `json:"event_id,omitempty"`
	TenantID     string   `json:"tenant_id"`
	LeafIndexes  []uint64 `json:"leaf_indexes"`
	ErasedAt     string   `json:"erased_at"`
	ReasonSHA256 string   `json:"reason_sha256,omitempty"`
	NodeID       string   `json:"node_id"`
	Nonce        string   `json:"nonce"`
}

// DescribeLeaf decodes a leaf for people: the field "attempt" of a package. The same bytes always give the same text:
// compact JSON with ids as TypeID text, hashes and the nonce as lower-case hex, times as RFC 3339 in UTC with nine
// digits of nanoseconds, and enum values as lower-case words without their prefix. Fields that are absent or unspecified
// in the leaf are left out, except for numbers and truths that mean something at zero. A leaf with fields or values that
// this version does not know is an error: a description without them would be a false one. So is one that is not in
// protobuf's usual encoding, which others might read otherwise.
func DescribeLeaf(leaf []byte) (json.RawMessage, error) {
	message, err := decodeLeaf(leaf)
	if err != nil {
		return nil, err
	}
	return describe(message)
}

func decodeLeaf(leaf []byte) (*leafv1.Leaf, error) {
	message := new(leafv1.Leaf)
	if err := proto.Unmarshal(leaf, message); err != nil {
		return nil, errors.New("the leaf is not a kapsel.leaf.v1.Leaf")
	}
	if err := checkWire(message.ProtoReflect().Descriptor(), leaf); err != nil {
		return nil, err
	}
	return message, nil
}

func describe(leaf *leafv1.Leaf) (json.RawMessage, error) {
	var w writer
	nonce := w.bytes("nonce", leaf.GetNonce(), nonceBytes)
	var text any
	switch kind := leaf.GetKind().(type) {
	case *leafv1.Leaf_Attempt:
		text = w.attempt(kind.Attempt, nonce)
	case *leafv1.Leaf_DeadLetter:
		text = w.deadLetter(kind.DeadLetter, nonce)
	case *leafv1.Leaf_Erasure:
		text = w.erasure(kind.Erasure, nonce)
	case *leafv1.Leaf_KeyRotation:
		text = w.rotation(kind.KeyRotation, nonce)
	default:
		return nil, errors.New("the leaf holds neither an attempt, nor a dead letter, nor an erasure, nor a hand-over of keys")
	}
	if w.err != nil {
		return nil, w.err
	}
	data, err := encodeJSON(text, "")
	if err != nil {
		return nil, fmt.Errorf("describe leaf: %w", err)
	}
	return data[:len(data)-1], nil // the newline
}

func (w *writer) attempt(a *leafv1.Attempt, nonce string) attemptText {
	return attemptText{
		Kind:      "attempt",
		AttemptID: w.id("att", a.GetAttemptId()), DeliveryID: w.id("dlv", a.GetDeliveryId()), EventID: w.id("evt", a.GetEventId()),
		TenantID: w.id("tnt", a.GetTenantId()), EndpointID: w.id("ep", a.GetEndpointId()), DestinationID: w.id("dst", a.GetDestinationId()),
		Number:               a.GetNumber(),
		PayloadSHA256:        w.bytes("payload_sha256", a.GetPayloadSha256(), hashBytes),
		PayloadBytes:         w.integer("payload_bytes", a.GetPayloadBytes(), maxInteger),
		URL:                  a.GetUrl(),
		ReceivedAt:           w.time("received_at", a.GetReceivedAt()),
		StartedAt:            optional(a.StartedAt != nil, func() string { return w.time("started_at", a.GetStartedAt()) }),
		DurationNS:           w.duration(a.GetDuration()),
		Outcome:              w.word("OUTCOME_", a.GetOutcome()),
		Failure:              optional(a.GetFailure() != 0, func() string { return w.word("FAILURE_", a.GetFailure()) }),
		StatusCode:           uint32(w.integer("status_code", uint64(a.GetStatusCode()), maxStatus)),
		RequestHeadersSHA256: w.optionalHash("request_headers_sha256", a.GetRequestHeadersSha256()),
		ResponseSHA256:       w.optionalHash("response_sha256", a.GetResponseSha256()),
		ResponseBytes:        w.integer("response_bytes", a.GetResponseBytes(), maxInteger),
		ResponseTruncated:    a.GetResponseTruncated(),
		NodeID:               w.id("nod", a.GetNodeId()),
		IntakeVerification:   a.GetIntakeVerification(),
		Late:                 a.GetLate(),
		Nonce:                nonce,
	}
}

func (w *writer) deadLetter(d *leafv1.DeadLetter, nonce string) deadLetterText {
	return deadLetterText{
		Kind:       "dead_letter",
		DeliveryID: optional(len(d.GetDeliveryId()) > 0, func() string { return w.id("dlv", d.GetDeliveryId()) }),
		EventID:    w.id("evt", d.GetEventId()), TenantID: w.id("tnt", d.GetTenantId()), EndpointID: w.id("ep", d.GetEndpointId()),
		DestinationID:   optional(len(d.GetDestinationId()) > 0, func() string { return w.id("dst", d.GetDestinationId()) }),
		Reason:          w.word("DEAD_LETTER_REASON_", d.GetReason()),
		Attempts:        d.GetAttempts(),
		PayloadSHA256:   w.bytes("payload_sha256", d.GetPayloadSha256(), hashBytes),
		PayloadBytes:    w.integer("payload_bytes", d.GetPayloadBytes(), maxInteger),
		ReceivedAt:      w.time("received_at", d.GetReceivedAt()),
		DeadAt:          w.time("dead_at", d.GetDeadAt()),
		DiagnosisSHA256: w.bytes("diagnosis_sha256", d.GetDiagnosisSha256(), hashBytes),
		NodeID:          w.id("nod", d.GetNodeId()),
		Nonce:           nonce,
	}
}

func (w *writer) erasure(e *leafv1.Erasure, nonce string) erasureText {
	indexes := e.GetLeafIndexes()
	if indexes == nil {
		indexes = []uint64{}
	}
	for i, index := range indexes {
		w.integer("leaf_indexes", index, maxInteger)
		if i > 0 && index <= indexes[i-1] {
			w.fail("leaf_indexes are not ascending")
		}
	}
	return erasureText{
		Kind:        "erasure",
		ErasureID:   w.id("att", e.GetErasureId()),
		EventID:     optional(len(e.GetEventId()) > 0, func() string { return w.id("evt", e.GetEventId()) }),
		TenantID:    w.id("tnt", e.GetTenantId()),
		LeafIndexes: indexes, ErasedAt: w.time("erased_at", e.GetErasedAt()),
		ReasonSHA256: w.optionalHash("reason_sha256", e.GetReasonSha256()),
		NodeID:       w.id("nod", e.GetNodeId()), Nonce: nonce,
	}
}

// writer spells values and keeps the first error.
type writer struct{ err error }

func (w *writer) fail(format string, arguments ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("the leaf's "+format, arguments...)
	}
}

func (w *writer) id(prefix string, value []byte) string {
	if len(value) != idBytes {
		w.fail("%s id has %d bytes: want %d", prefix, len(value), idBytes)
		return ""
	}
	return prefix + "_" + base32.Encode([idBytes]byte(value))
}

func (w *writer) bytes(name string, value []byte, size int) string {
	if len(value) != size {
		w.fail("%s has %d bytes: want %d", name, len(value), size)
	}
	return hex.EncodeToString(value)
}

func (w *writer) optionalHash(name string, value []byte) string {
	if len(value) == 0 {
		return ""
	}
	return w.bytes(name, value, hashBytes)
}

func (w *writer) integer(name string, value, limit uint64) uint64 {
	if value > limit {
		w.fail("%s is %d: at most %d", name, value, limit)
	}
	return value
}

func (w *writer) time(name string, value *timestamppb.Timestamp) string {
	if err := value.CheckValid(); err != nil {
		w.fail("%s is not a time", name)
	}
	return value.AsTime().Format(timeLayout)
}

func (w *writer) duration(value *durationpb.Duration) *int64 {
	if value == nil {
		return nil
	}
	nanoseconds := int64(value.AsDuration() / time.Nanosecond)
	if value.CheckValid() != nil || nanoseconds < 0 || nanoseconds > maxInteger {
		w.fail("duration is not possible")
	}
	return &nanoseconds
}

// word spells an enum's value, such as "worker_lost".
func (w *writer) word(prefix string, value protoreflect.Enum) string {
	found := value.Descriptor().Values().ByNumber(value.Number())
	if found == nil || found.Number() == 0 {
		w.fail("%s is %d, which this version does not know", value.Descriptor().Name(), value.Number())
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(string(found.Name()), prefix))
}

func optional(present bool, spell func() string) string {
	if !present {
		return ""
	}
	return spell()
}
