package ingest

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/jsonpath"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/signature"
)

func TestRepeatedDeliveryIDMakesOneEvent(t *testing.T) {
	const rounds, clients = 100, 32
	r := newRig(t, 5*time.Second)
	var seen []uuid.UUID
	for round := range rounds {
		var mu sync.Mutex
		var firsts int
		ids := make(map[uuid.UUID]bool)
		var group sync.WaitGroup
		for range clients {
			group.Go(func() {
				receipt, err := r.Accept(t.Context(), r.webhook(fmt.Sprint("delivery-", round), fmt.Sprint(round)))
				if err != nil {
					t.Errorf("accept: %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				ids[receipt.EventID] = true
				if !receipt.Duplicate {
					firsts++
				}
			})
		}
		group.Wait()
		if len(ids) != 1 || firsts != 1 {
			t.Fatalf("round %d: %d ids, %d receipts that say it was new: want 1, 1", round, len(ids), firsts)
		}
		for event := range ids {
			seen = append(seen, event)
		}
	}
	r.await(0, "select count(*) from delivery_queue")
	if events := r.count("select count(*) from events"); events != rounds {
		t.Errorf("%d events, want %d", events, rounds)
	}
	for round, event := range seen {
		if got := r.bodies(event); len(got) != 1 || string(got[0]) != fmt.Sprint(round) {
			t.Errorf("round %d arrived as %q", round, got)
		}
	}
	if attempts := r.count("select count(*) from attempts"); attempts != rounds {
		t.Errorf("%d attempts, want %d", attempts, rounds)
	}
}

func TestKeyIsForgottenAfterItsWindow(t *testing.T) {
	r := newRig(t, 5*time.Second)
	first := r.accept(r.webhook("key", "1"))
	if second := r.accept(r.webhook("key", "2")); second.EventID != first.EventID || !second.Duplicate || second.State != Accepted {
		t.Errorf("inside the window: %+v", second)
	}
	r.exec(`update dedup_keys set expires_at = now()`)
	third := r.accept(r.webhook("key", "3"))
	if third.EventID == first.EventID || third.Duplicate {
		t.Errorf("after the window: %+v", third)
	}
	if fourth := r.accept(r.webhook("key", "4")); fourth.EventID != third.EventID || !fourth.Duplicate {
		t.Errorf("inside the second window: %+v", fourth)
	}
	if got := r.count(`select count(*) from dedup_keys where expires_at between now() + interval '23 hours' and now() + interval '25 hours'`); got != 1 {
		t.Errorf("%d keys with a window of a day", got)
	}
}

func TestKeysOfTwoEndpointsDoNotMeet(t *testing.T) {
	r := newRig(t, 5*time.Second)
	first := r.accept(r.webhook("key", "1"))
	other := *r.routes.Snapshot().Endpoint(r.endpoint)
	other.ID = uuid.New()
	w := r.webhook("key", "1")
	w.Endpoint = &other
	if second := r.accept(w); second.Duplicate || second.EventID == first.EventID {
		t.Errorf("another endpoint's key made a duplicate: %+v", second)
	}
}

// A key may be removed at any moment after it expired: the webhook is then new or a repeat, and never an error.
func TestKeyThatVanishesMeanwhile(t *testing.T) {
	r := newRig(t, 5*time.Second)
	stop := make(chan struct{})
	var cleaner sync.WaitGroup
	cleaner.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := r.db.Engine().Exec(t.Context(), "delete from dedup_keys"); err != nil {
					t.Errorf("delete keys: %v", err)
				}
			}
		}
	})
	var mu sync.Mutex
	events := make(map[uuid.UUID]bool)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 150 {
				receipt, err := r.Accept(t.Context(), r.webhook("key", "{}"))
				if err != nil {
					t.Errorf("accept: %v", err)
				}
				mu.Lock()
				events[receipt.EventID] = true
				mu.Unlock()
			}
		})
	}
	group.Wait()
	close(stop)
	cleaner.Wait()
	if got := r.count("select count(*) from events"); got != len(events) {
		t.Errorf("%d events are stored, and receipts name %d", got, len(events))
	}
}

func TestDeduplicationKeyComesFromItsSource(t *testing.T) {
	verifier := func(preset string) *signature.Verifier {
		secret := map[string]string{signature.PresetStandardWebhooks: signature.NewSecret(), "postmark": "user:password"}[preset]
		v, err := signature.NewVerifier(signature.Config{Preset: preset}, [][]byte{[]byte(cmp.Or(secret, "secret"))})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	github, stripe := verifier(signature.PresetGitHub), verifier(signature.PresetStripe)
	standard, zoom, postmark := verifier(signature.PresetStandardWebhooks), verifier("zoom"), verifier("postmark")
	header := func(pairs ...string) http.Header {
		h := make(http.Header)
		for i := 0; i < len(pairs); i += 2 {
			h.Add(pairs[i], pairs[i+1])
		}
		return h
	}
	path := route.Dedup{Source: route.DedupJSONPath, Path: jsonpath.Parse("data.id")}
	for _, test := range []struct {
		name     string
		dedup    route.Dedup
		verifier *signature.Verifier
		header   http.Header
		body     string
		want     string
	}{
		{"auto takes Idempotency-Key first", route.Dedup{}, github, header("idempotency-key", "a", "X-Idempotency-Key", "b", "X-GitHub-Delivery", "c"), "{}", "idempotency:a"},
		{"auto takes X-Idempotency-Key second", route.Dedup{}, github, header("X-Idempotency-Key", "b", "X-GitHub-Delivery", "c"), "{}", "idempotency:b"},
		{"auto takes the provider's header", route.Dedup{}, github, header("X-GitHub-Delivery", "c"), "{}", "provider:c"},
		{"auto takes the provider's member", route.Dedup{}, stripe, nil, `{"id":"evt_1"}`, "provider:evt_1"},
		{"auto takes the provider's signed member first", route.Dedup{}, stripe, header("Idempotency-Key", "a"), `{"id":"evt_1"}`, "provider:evt_1"},
		{"auto takes the provider's signed header first", route.Dedup{}, standard, header("Idempotency-Key", "a", "Webhook-Id", "m"), `{}`, "provider:m"},
		{"auto takes the signed body first", route.Dedup{}, zoom, header("Idempotency-Key", "a"), "",
			"body:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"auto takes Idempotency-Key before a body that is not signed", route.Dedup{}, postmark, header("Idempotency-Key", "a"), "{}", "idempotency:a"},
		{"auto takes Idempotency-Key without the provider's signed member", route.Dedup{}, stripe, header("Idempotency-Key", "a"), `{}`, "idempotency:a"},
		{"auto finds nothing", route.Dedup{}, github, header("X-Other", "c"), "{}", ""},
		{"header", route.Dedup{Source: route.DedupHeader, Name: "X-Id"}, github, header("x-id", "1", "Idempotency-Key", "a"), "{}", "header:1"},
		{"no such header", route.Dedup{Source: route.DedupHeader, Name: "X-Id"}, github, header("Idempotency-Key", "a"), "{}", ""},
		{"empty header", route.Dedup{Source: route.DedupHeader, Name: "X-Id"}, github, header("X-Id", ""), "{}", ""},
		{"JSON path", path, github, nil, `{"data":{"id":"x"}}`, "json:x"},
		{"JSON path to a number", path, github, nil, `{"data":{"id":12345678901234567890}}`, "json:12345678901234567890"},
		{"JSON path to nothing", path, github, nil, `{"data":{}}`, ""},
		{"JSON path to null", path, github, nil, `{"data":{"id":null}}`, ""},
		{"JSON path to an empty text", path, github, nil, `{"data":{"id":""}}`, ""},
		{"JSON path in something else", path, github, nil, `<xml/>`, ""},
		{"body", route.Dedup{Source: route.DedupBodyHash}, github, header("Idempotency-Key", "a"), "",
			"body:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"none", route.Dedup{Source: route.DedupNone}, github, header("Idempotency-Key", "a", "X-GitHub-Delivery", "c"), `{"id":"1"}`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := Webhook{Endpoint: &route.Endpoint{Dedup: test.dedup, Verifier: test.verifier}, Header: test.header, Body: []byte(test.body)}
			p := newPending(w, "none")
			if got := dedupKey(w, p.event.BodySHA256); got != test.want || (p.keyHash == nil) != (test.want == "") {
				t.Errorf("got %q, hash %x: want %q", got, p.keyHash, test.want)
			}
		})
	}
	// Who has an API key is believed.
	w := Webhook{Endpoint: &route.Endpoint{Verifier: stripe}, Header: header("Idempotency-Key", "a"), Body: []byte(`{"id":"evt_1"}`), Trusted: true}
	if got := dedupKey(w, sha256.Sum256(w.Body)); got != "idempotency:a" {
		t.Errorf("with an API key: %q", got)
	}
}

func TestWebhooksWithoutAKeyAreNeverRepeats(t *testing.T) {
	r := newRig(t, 5*time.Second)
	first, second := r.accept(r.webhook("", "same")), r.accept(r.webhook("", "same"))
	if first.EventID == second.EventID || first.Duplicate || second.Duplicate {
		t.Errorf("got %+v and %+v", first, second)
	}
}

func TestBrokenJSONIsKeptAndAttestedAndNotSent(t *testing.T) {
	r := newRig(t, 5*time.Second)
	r.exec(`update endpoints set payload_format = 'json'`)
	r.refresh()
	for body, diagnosis := range map[string]string{
		`{"a":1,}`:          "invalid character '}'",
		``:                  "empty",
		`{"a":`:             "unexpected end",
		"{\"a\":\"\xff\x00": "at byte",
		`{} {}`:             "after top-level value",
	} {
		receipt := r.accept(r.webhook(fmt.Sprintf("k%x", body), body))
		if receipt.State != DeadLettered || receipt.Duplicate {
			t.Errorf("%q: receipt %+v", body, receipt)
		}
		if again := r.accept(r.webhook(fmt.Sprintf("k%x", body), body)); again.EventID != receipt.EventID || !again.Duplicate || again.State != DeadLettered {
			t.Errorf("%q: repeat %+v", body, again)
		}
		r.await(1, "select count(*) from dead_letters where event_id = $1", receipt.EventID)
		var stored, leafBytes []byte
		var defect, told string
		if err := r.db.Engine().QueryRow(t.Context(), `select e.body, e.defect, d.diagnosis, a.leaf from events e join dead_letters d using (event_id)
			join attempts a on a.log_id = d.log_id and a.leaf_index = d.leaf_index where e.event_id = $1`, receipt.EventID).
			Scan(&stored, &defect, &told, &leafBytes); err != nil {
			t.Fatal(err)
		}
		if string(stored) != body || !strings.Contains(told, diagnosis) || defect != told {
			t.Errorf("%q: stored as %q with diagnosis %q, defect %q", body, stored, told, defect)
		}
		var leaf leafv1.Leaf
		if err := proto.Unmarshal(leafBytes, &leaf); err != nil {
			t.Fatal(err)
		}
		if letter := leaf.GetDeadLetter(); letter.GetReason() != leafv1.DeadLetterReason_DEAD_LETTER_REASON_MALFORMED_PAYLOAD ||
			!bytes.Equal(letter.GetEventId(), receipt.EventID[:]) || letter.GetPayloadBytes() != uint64(len(body)) {
			t.Errorf("%q: leaf %v", body, &leaf)
		}
		if got := r.bodies(receipt.EventID); got != nil {
			t.Errorf("%q was sent: %q", body, got)
		}
	}
	good := r.accept(r.webhook("good", "[1]"))
	if good.State != Accepted {
		t.Errorf("good JSON: %+v", good)
	}
	r.await(0, "select count(*) from delivery_queue")
}

func TestBytesAndHeadersAreStoredAsSent(t *testing.T) {
	r := newRig(t, 5*time.Second)
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	w := r.webhook("key", string(all))
	w.Header = http.Header{"X-B": {"2", "1"}, "X-A": {"\xff: \t end"}, "Content-Type": {"text/\xfe"}, "X-Type": {"kind\xff"}, "X-Empty": {""}}
	receipt := r.accept(w)
	var body, headers []byte
	var contentType, eventType, source string
	if err := r.db.Engine().QueryRow(t.Context(), `select body, headers, content_type, event_type, source_address from events where event_id = $1`, receipt.EventID).
		Scan(&body, &headers, &contentType, &eventType, &source); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(body, all) {
		t.Errorf("body: %x", body)
	}
	if want := "Content-Type: text/\xfe\r\nX-A: \xff: \t end\r\nX-B: 2\r\nX-B: 1\r\nX-Empty: \r\nX-Type: kind\xff\r\n"; string(headers) != want {
		t.Errorf("headers: %q, want %q", headers, want)
	}
	if contentType != "text/\uFFFD" || eventType != "kind\uFFFD" || source != "192.0.2.1" {
		t.Errorf("content type %q, event type %q, source %q", contentType, eventType, source)
	}
	r.await(0, "select count(*) from delivery_queue")
	if got := r.bodies(receipt.EventID); len(got) != 1 || !bytes.Equal(got[0], all) {
		t.Errorf("arrived: %x", got)
	}
}

func TestWrongSignatureIsRefusedAndStoresNothing(t *testing.T) {
	r := newRig(t, 5*time.Second)
	endpoint := *r.routes.Snapshot().Endpoint(r.endpoint)
	var err error
	if endpoint.Verifier, err = signature.NewVerifier(signature.Config{Preset: signature.PresetGitHub}, [][]byte{[]byte("secret")}); err != nil {
		t.Fatal(err)
	}
	w := r.webhook("", "{}")
	w.Endpoint = &endpoint
	if receipt, err := r.Accept(t.Context(), w); err == nil {
		t.Errorf("unsigned webhook: %+v", receipt)
	}
	w.Trusted = true
	if _, err := r.Accept(t.Context(), w); err != nil {
		t.Errorf("trusted webhook: %v", err)
	}
	if got := r.count("select count(*) from events where verification = $1", verifiedByAPIKey); got != 1 {
		t.Errorf("%d trusted events", got)
	}
	if got := r.count("select count(*) from events"); got != 1 {
		t.Errorf("%d events", got)
	}
}

func TestErrorsOfIntakeAreToldApart(t *testing.T) {
	for _, pair := range [][2]error{{ErrOverloaded, ErrUnavailable}, {ErrUnavailable, ErrRejected}, {ErrRejected, ErrOverloaded}} {
		if errors.Is(outcomeError(pair[0]), pair[1]) || !errors.Is(outcomeError(pair[0]), pair[0]) {
			t.Errorf("%v is not told from %v", pair[0], pair[1])
		}
	}
}

func outcomeError(cause error) error {
	_, err := outcome{err: cause}.receipt()
	return err
}
