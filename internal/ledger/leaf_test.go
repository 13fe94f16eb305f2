package ledger

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

var leafTime = time.Date(2026, 3, 4, 5, 6, 7, 89_000, time.UTC)

func sampleAttempt() *leafv1.Attempt {
	fill := func(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }
	return &leafv1.Attempt{
		AttemptId: fill(16, 1), DeliveryId: fill(16, 2), EventId: fill(16, 3), TenantId: fill(16, 4),
		EndpointId: fill(16, 5), DestinationId: fill(16, 6), Number: 3,
		PayloadSha256: fill(32, 7), PayloadBytes: 1024, Url: "https://shop.example.com/hooks",
		ReceivedAt: timestamppb.New(leafTime), StartedAt: timestamppb.New(leafTime.Add(time.Millisecond)),
		Duration: durationpb.New(8 * time.Millisecond), Outcome: leafv1.Outcome_OUTCOME_FAILED,
		Failure: leafv1.Failure_FAILURE_STATUS, StatusCode: 503,
		RequestHeadersSha256: fill(32, 8), ResponseSha256: fill(32, 9), ResponseBytes: 12, NodeId: fill(16, 10),
		IntakeVerification: "github",
	}
}

func sampleDeadLetter() *leafv1.DeadLetter {
	fill := func(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }
	return &leafv1.DeadLetter{
		DeliveryId: fill(16, 2), EventId: fill(16, 3), TenantId: fill(16, 4), EndpointId: fill(16, 5), DestinationId: fill(16, 6),
		Reason: leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXHAUSTED, Attempts: 10,
		PayloadSha256: fill(32, 7), PayloadBytes: 1024, ReceivedAt: timestamppb.New(leafTime),
		DeadAt: timestamppb.New(leafTime.Add(75 * time.Hour)), DiagnosisSha256: fill(32, 8), NodeId: fill(16, 10),
	}
}

func TestLeafHoldsWhatWasEncoded(t *testing.T) {
	attempt, err := EncodeAttempt(sampleAttempt())
	if err != nil {
		t.Fatal(err)
	}
	letter, err := EncodeDeadLetter(sampleDeadLetter())
	if err != nil {
		t.Fatal(err)
	}
	var first, second leafv1.Leaf
	if err := proto.Unmarshal(attempt, &first); err != nil || !proto.Equal(first.GetAttempt(), sampleAttempt()) {
		t.Errorf("got %v, %v", &first, err)
	}
	if err := proto.Unmarshal(letter, &second); err != nil || !proto.Equal(second.GetDeadLetter(), sampleDeadLetter()) {
		t.Errorf("got %v, %v", &second, err)
	}
}

func TestEncodingTwiceGivesTwoNonces(t *testing.T) {
	attempt := sampleAttempt()
	seen := make(map[string]bool)
	for range 1000 {
		data, err := EncodeAttempt(attempt)
		if err != nil {
			t.Fatal(err)
		}
		var leaf leafv1.Leaf
		if err := proto.Unmarshal(data, &leaf); err != nil || len(leaf.GetNonce()) != 16 || seen[string(leaf.GetNonce())] {
			t.Fatalf("nonce %x, %v", leaf.GetNonce(), err)
		}
		seen[string(leaf.GetNonce())] = true
	}
}

// A leaf that is written can be described and so proved, whatever is left out of it.
func TestWhatIsEncodedCanBeDescribed(t *testing.T) {
	for name, change := range map[string]func(a *leafv1.Attempt){
		"whole": func(*leafv1.Attempt) {},
		"lost worker": func(a *leafv1.Attempt) {
			a.StartedAt, a.Duration, a.RequestHeadersSha256, a.ResponseSha256, a.ResponseBytes, a.StatusCode = nil, nil, nil, nil, 0, 0
			a.Outcome, a.Failure = leafv1.Outcome_OUTCOME_UNKNOWN, leafv1.Failure_FAILURE_WORKER_LOST
		},
		"bounds": func(a *leafv1.Attempt) {
			a.Number, a.PayloadBytes, a.ResponseBytes, a.StatusCode = 1<<32-1, maxLeafPayloadBytes, maxLeafResponseLength, maxLeafStatus
			a.Url, a.Duration = strings.Repeat("u", maxLeafURLBytes), durationpb.New(maxLeafDurationNanos)
		},
		"last failure": func(a *leafv1.Attempt) { a.Failure = leafv1.Failure_FAILURE_AUTHORIZATION },
		"odd text":     func(a *leafv1.Attempt) { a.Url = "\u2028\x00<" },
	} {
		a := sampleAttempt()
		change(a)
		leaf, err := EncodeAttempt(a)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := verify.DescribeLeaf(leaf); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	letter := sampleDeadLetter()
	letter.DeliveryId, letter.DestinationId, letter.Attempts = nil, nil, 0
	letter.Reason = leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXPIRED
	leaf, err := EncodeDeadLetter(letter)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify.DescribeLeaf(leaf); err != nil {
		t.Error(err)
	}
}

// Enum values that are added to the format must be added to the bounds.
func TestBoundsReachTheLastValues(t *testing.T) {
	for _, enum := range []struct {
		last  int32
		names map[int32]string
	}{
		{int32(leafv1.Outcome_OUTCOME_UNKNOWN), leafv1.Outcome_name},
		{int32(leafv1.Failure_FAILURE_AUTHORIZATION), leafv1.Failure_name},
		{int32(leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXPIRED), leafv1.DeadLetterReason_name},
	} {
		if len(enum.names) != int(enum.last)+1 {
			t.Errorf("there are %d values, and the last that is taken is %s", len(enum.names), enum.names[enum.last])
		}
	}
}

func TestRefusesLeavesOutOfBounds(t *testing.T) {
	for field, change := range map[string]func(a *leafv1.Attempt){
		"attempt_id":             func(a *leafv1.Attempt) { a.AttemptId = nil },
		"delivery_id":            func(a *leafv1.Attempt) { a.DeliveryId = a.DeliveryId[:15] },
		"event_id":               func(a *leafv1.Attempt) { a.EventId = nil },
		"tenant_id":              func(a *leafv1.Attempt) { a.TenantId = nil },
		"endpoint_id":            func(a *leafv1.Attempt) { a.EndpointId = nil },
		"destination_id":         func(a *leafv1.Attempt) { a.DestinationId = append(a.DestinationId, 0) },
		"node_id":                func(a *leafv1.Attempt) { a.NodeId = nil },
		"payload_sha256":         func(a *leafv1.Attempt) { a.PayloadSha256 = nil },
		"request_headers_sha256": func(a *leafv1.Attempt) { a.RequestHeadersSha256 = []byte{1} },
		"response_sha256":        func(a *leafv1.Attempt) { a.ResponseSha256 = []byte{1} },
		"url":                    func(a *leafv1.Attempt) { a.Url = strings.Repeat("u", maxLeafURLBytes+1) },
		"url is not valid":       func(a *leafv1.Attempt) { a.Url = "\xff" },
		"intake_verification":    func(a *leafv1.Attempt) { a.IntakeVerification = strings.Repeat("p", 65) },
		"number":                 func(a *leafv1.Attempt) { a.Number = 0 },
		"payload_bytes":          func(a *leafv1.Attempt) { a.PayloadBytes = 1 << 53 },
		"response_bytes":         func(a *leafv1.Attempt) { a.ResponseBytes = 1 << 53 },
		"status_code":            func(a *leafv1.Attempt) { a.StatusCode = 1000 },
		"outcome":                func(a *leafv1.Attempt) { a.Outcome = 0 },
		"failure":                func(a *leafv1.Attempt) { a.Failure = -1 },
		"received_at":            func(a *leafv1.Attempt) { a.ReceivedAt = nil },
		"started_at":             func(a *leafv1.Attempt) { a.StartedAt = &timestamppb.Timestamp{Nanos: -1} },
		"duration":               func(a *leafv1.Attempt) { a.Duration = durationpb.New(-1) },
	} {
		a := sampleAttempt()
		change(a)
		if _, err := EncodeAttempt(a); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: got %v", field, err)
		}
	}
	for field, change := range map[string]func(d *leafv1.DeadLetter){
		"delivery_id":      func(d *leafv1.DeadLetter) { d.DeliveryId = []byte{1} },
		"event_id":         func(d *leafv1.DeadLetter) { d.EventId = nil },
		"tenant_id":        func(d *leafv1.DeadLetter) { d.TenantId = nil },
		"endpoint_id":      func(d *leafv1.DeadLetter) { d.EndpointId = nil },
		"destination_id":   func(d *leafv1.DeadLetter) { d.DestinationId = []byte{1} },
		"node_id":          func(d *leafv1.DeadLetter) { d.NodeId = nil },
		"payload_sha256":   func(d *leafv1.DeadLetter) { d.PayloadSha256 = nil },
		"diagnosis_sha256": func(d *leafv1.DeadLetter) { d.DiagnosisSha256 = nil },
		"reason":           func(d *leafv1.DeadLetter) { d.Reason = 0 },
		"payload_bytes":    func(d *leafv1.DeadLetter) { d.PayloadBytes = 1 << 53 },
		"received_at":      func(d *leafv1.DeadLetter) { d.ReceivedAt = nil },
		"dead_at":          func(d *leafv1.DeadLetter) { d.DeadAt = nil },
	} {
		d := sampleDeadLetter()
		change(d)
		if _, err := EncodeDeadLetter(d); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: got %v", field, err)
		}
	}
	if _, err := EncodeAttempt(nil); err == nil {
		t.Error("took no attempt")
	}
}

// The bytes of a stored leaf, which say the same for ever.
func TestStoredLeafKeepsItsMeaning(t *testing.T) {
	stored, err := hex.DecodeString("0a10d1870be48a8b730eafc0ed4d84e9609f12bf020a100101010101010101010101010101010112100202020202020202020202020202" +
		"02021a10030303030303030303030303030303032210040404040404040404040404040404042a10050505050505050505050505050505" +
		"05321006060606060606060606060606060606380342200707070707070707070707070707070707070707070707070707070707070707" +
		"488008521e68747470733a2f2f73686f702e6578616d706c652e636f6d2f686f6f6b735a0a08bffb9ecd0610a8b705620a08bffb9ecd06" +
		"10e8bb426a051080a4e803700278068001f7038a0120080808080808080808080808080808080808080808080808080808080808080892" +
		"0120090909090909090909090909090909090909090909090909090909090909090998010caa01100a0a0a0a0a0a0a0a0a0a0a0a0a0a0a" +
		"0ab20106676974687562")
	if err != nil {
		t.Fatal(err)
	}
	got, err := verify.DescribeLeaf(stored)
	const want = `{"kind":"attempt","attempt_id":"att_01040g2081040g2081040g2081","delivery_id":"dlv_02081040g2081040g2081040g2"` +
		`,"event_id":"evt_030c1g60r30c1g60r30c1g60r3","tenant_id":"tnt_040g2081040g2081040g208104","endpoint_id":"ep_05` +
		`0m2ga1850m2ga1850m2ga185","destination_id":"dst_060r30c1g60r30c1g60r30c1g6","number":3,"payload_sha256":"07070` +
		`70707070707070707070707070707070707070707070707070707070707","payload_bytes":1024,"url":"https://shop.example.` +
		`com/hooks","received_at":"2026-03-04T05:06:07.000089000Z","started_at":"2026-03-04T05:06:07.001089000Z","durat` +
		`ion_ns":8000000,"outcome":"failed","failure":"status","status_code":503,"request_headers_sha256":"080808080808` +
		`0808080808080808080808080808080808080808080808080808","response_sha256":"0909090909090909090909090909090909090` +
		`909090909090909090909090909","response_bytes":12,"response_truncated":false,"node_id":"nod_0a1850m2ga1850m2ga1` +
		`850m2ga","intake_verification":"github","late":false,"nonce":"d1870be48a8b730eafc0ed4d84e9609f"}`
	if err != nil || string(got) != want {
		t.Fatalf("got %s, %v\nwant %s", got, err, want)
	}
	var leaf leafv1.Leaf
	if err := proto.Unmarshal(stored, &leaf); err != nil || !proto.Equal(leaf.GetAttempt(), sampleAttempt()) {
		t.Errorf("got %v, %v", &leaf, err)
	}
}

func BenchmarkEncodeAttempt(b *testing.B) {
	attempt := sampleAttempt()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := EncodeAttempt(attempt); err != nil {
			b.Fatal(err)
		}
	}
}
