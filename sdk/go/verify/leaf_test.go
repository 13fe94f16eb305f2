package verify_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

func attemptLeaf(a *leafv1.Attempt) *leafv1.Leaf {
	return &leafv1.Leaf{Nonce: filled(16, 0xa0), Kind: &leafv1.Leaf_Attempt{Attempt: a}}
}

func letterLeaf(d *leafv1.DeadLetter) *leafv1.Leaf {
	return &leafv1.Leaf{Nonce: filled(16, 0xa0), Kind: &leafv1.Leaf_DeadLetter{DeadLetter: d}}
}

func TestDescribesALostAttempt(t *testing.T) {
	a := testAttempt()
	a.StartedAt, a.Duration, a.StatusCode, a.ResponseBytes = nil, nil, 0, 0
	a.RequestHeadersSha256, a.ResponseSha256 = nil, nil
	a.Outcome, a.Failure, a.Late = leafv1.Outcome_OUTCOME_UNKNOWN, leafv1.Failure_FAILURE_WORKER_LOST, true
	got, err := verify.DescribeLeaf(marshal(t, attemptLeaf(a)))
	want := `{"kind":"attempt","attempt_id":"att_01081g81860w40j2gb1g6gw3rg","delivery_id":"dlv_020c20a1g7104gm2rc1m70y40h",` +
		`"event_id":"evt_030g2gc1r81450p30d1r7h048j","tenant_id":"tnt_040m30e209185gr38e1w8124gk",` +
		`"endpoint_id":"ep_050r3gg28a1c60t3gf208h44rm","destination_id":"dst_060w40j2gb1g6gw3rg2491650n","number":2,` +
		`"payload_sha256":"0708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223242526","payload_bytes":1024,` +
		`"url":"https://shop.example.com/hooks?a=1&b=<2>","received_at":"2026-03-04T05:05:58.000000000Z",` +
		`"outcome":"unknown","failure":"worker_lost","response_bytes":0,"response_truncated":false,` +
		`"node_id":"nod_0a1c60t3gf208h44rm2mb1e60s","intake_verification":"github","late":true,` +
		`"nonce":"a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"}`
	if err != nil || string(got) != want {
		t.Fatalf("got %s, %v\nwant %s", got, err, want)
	}
}

func TestDescribesADeadDelivery(t *testing.T) {
	d := testDeadLetter()
	d.DeliveryId, d.DestinationId, d.Attempts = filled(16, 2), filled(16, 6), 10
	d.Reason = leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXHAUSTED
	got, err := verify.DescribeLeaf(marshal(t, letterLeaf(d)))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		`{"kind":"dead_letter","delivery_id":"dlv_020c20a1g7104gm2rc1m70y40h","event_id":`,
		`"destination_id":"dst_060w40j2gb1g6gw3rg2491650n","reason":"exhausted","attempts":10,`,
		`"received_at":"2026-03-04T05:06:07.000000000Z","dead_at":"2026-03-04T05:06:07.000001000Z",`,
	} {
		if !strings.Contains(string(got), part) {
			t.Errorf("lacks %s: %s", part, got)
		}
	}
}

// Other languages' JSON does not escape what Go's does, and all must give the same bytes.
func TestDescriptionEscapesOnlyWhatJSONDemands(t *testing.T) {
	a := testAttempt()
	a.Url = "https://x/\u2028\u2029\\u2028\"<>&\u007f\t\x01é😀"
	got, err := verify.DescribeLeaf(marshal(t, attemptLeaf(a)))
	want := "\"url\":\"https://x/\u2028\u2029\\\\u2028\\\"<>&\u007f\\t\\u0001é😀\","
	if err != nil || !strings.Contains(string(got), want) {
		t.Fatalf("got %s, %v\nwant %s", got, err, want)
	}
	var back struct{ URL string }
	if err := json.Unmarshal(got, &back); err != nil || back.URL != a.Url {
		t.Fatalf("got %q, %v", back.URL, err)
	}
	l := newLog(testOrigin, 1)
	l.add(t, marshal(t, attemptLeaf(a)))
	if report, err := verify.Verify(encode(t, l.pack(t, 0, 1)), trust(l)); err != nil || !report.Full {
		t.Fatal(err)
	}
}

// brokenLeaves cannot be described.
func brokenLeaves(t *testing.T) map[string][]byte {
	attempt := func(change func(a *leafv1.Attempt)) []byte {
		a := testAttempt()
		change(a)
		return marshal(t, attemptLeaf(a))
	}
	nonce := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), filled(16, 0))
	newField := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	return map[string][]byte{
		"empty":            nil,
		"garbage":          {0xff},
		"only a nonce":     nonce,
		"new field":        append(attempt(func(*leafv1.Attempt) {}), newField...),
		"new field inside": protowire.AppendBytes(protowire.AppendTag(nonce, 2, protowire.BytesType), newField),
		"short nonce":      marshal(t, &leafv1.Leaf{Nonce: filled(15, 0), Kind: &leafv1.Leaf_Attempt{Attempt: testAttempt()}}),
		"no id":            attempt(func(a *leafv1.Attempt) { a.EventId = nil }),
		"long hash":        attempt(func(a *leafv1.Attempt) { a.PayloadSha256 = filled(33, 0) }),
		"no time":          attempt(func(a *leafv1.Attempt) { a.ReceivedAt = nil }),
		"bad time":         attempt(func(a *leafv1.Attempt) { a.StartedAt = &timestamppb.Timestamp{Seconds: 1 << 60} }),
		"negative":         attempt(func(a *leafv1.Attempt) { a.Duration = durationpb.New(-time.Second) }),
		"no outcome":       attempt(func(a *leafv1.Attempt) { a.Outcome = 0 }),
		"new outcome":      attempt(func(a *leafv1.Attempt) { a.Outcome = 77 }),
		"new failure":      attempt(func(a *leafv1.Attempt) { a.Failure = 77 }),
		"huge size":        attempt(func(a *leafv1.Attempt) { a.PayloadBytes = 1 << 53 }),
		"status":           attempt(func(a *leafv1.Attempt) { a.StatusCode = 1000 }),
		"no reason": marshal(t, letterLeaf(func() *leafv1.DeadLetter {
			d := testDeadLetter()
			d.Reason = 0
			return d
		}())),
		"not UTF-8": bytes.Replace(attempt(func(*leafv1.Attempt) {}), []byte("shop"), []byte("sh\xffp"), 1),
	}
}

func TestRefusesLeavesThatItCannotDescribe(t *testing.T) {
	leaves := brokenLeaves(t)
	maps.Copy(leaves, misspeltLeaves(t))
	for name, leaf := range leaves {
		if got, err := verify.DescribeLeaf(leaf); err == nil {
			t.Errorf("%s: described as %s", name, got)
		}
	}
}
