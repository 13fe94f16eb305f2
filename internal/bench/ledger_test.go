package bench

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"testing"
	"time"
)

func TestLedgerGrowsPastAChunk(t *testing.T) {
	l := newLedger()
	const n = 2*chunkRecords + 10
	for range n {
		id, ok := l.issue()
		if !ok {
			t.Fatal("full")
		}
		l.sent(id, int64(id))
		l.acked(id, int64(id)+int64(2*time.Millisecond))
	}
	missing := uint64(chunkRecords + 5)
	for id := range uint64(n) {
		if id != missing && !l.received(id) {
			t.Fatalf("id %d was issued, and refused", id)
		}
	}
	if got := l.undelivered(0); got != missing {
		t.Errorf("undelivered: got %d, want %d", got, missing)
	}
	o := l.addUp()
	if o.accepted != n || o.delivered != n-1 || o.lost != 1 {
		t.Errorf("accepted %d, delivered %d, lost %d of %d with one missing", o.accepted, o.delivered, o.lost, n)
	}
	if p := o.ack.ms(50); p < 1.99 || p > 2.01 {
		t.Errorf("ack p50: got %g ms, want 2", p)
	}
}

func TestFullLedgerGivesOutNoMoreIDs(t *testing.T) {
	l := newLedger()
	l.next.Store(maxWebhooks - 1)
	if _, ok := l.issue(); !ok {
		t.Error("the last id was refused")
	}
	if id, ok := l.issue(); ok {
		t.Errorf("gave out %d", id)
	}
	if l.received(maxWebhooks) || l.received(math.MaxUint64) {
		t.Error("took an id past the bound")
	}
}

func TestStampedRequestIsOneThatAnHTTPServerReads(t *testing.T) {
	target, err := parseTarget("https://hooks.example.com/ingest/ep_1?a=b")
	if err != nil {
		t.Fatal(err)
	}
	const run = 0x0123456789abcdef
	w := newWebhook(target, testSecret, run, 0, newPayload(run, DefaultPayloadBytes))
	seen := map[string]bool{}
	for _, id := range []uint64{0, 1, 0xabcdef, maxWebhooks - 1} {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(w.stamp(id))))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || len(body) != DefaultPayloadBytes || !json.Valid(body) {
			t.Fatalf("body of %d bytes, %v: %s", len(body), err, body)
		}
		if gotRun, gotID, ok := readMark(body); !ok || gotRun != run || gotID != id {
			t.Errorf("mark: got %x, %x, %t; want %x, %x", gotRun, gotID, ok, uint64(run), id)
		}
		mac := hmac.New(sha256.New, []byte(testSecret))
		mac.Write(body)
		if got, want := r.Header.Get("X-Hub-Signature-256"), "sha256="+hex.EncodeToString(mac.Sum(nil)); got != want {
			t.Errorf("signature: got %s, want %s", got, want)
		}
		if r.Host != "hooks.example.com" || r.RequestURI != "/ingest/ep_1?a=b" || target.dialAddr != "hooks.example.com:443" {
			t.Errorf("host %q, path %q, dial %q", r.Host, r.RequestURI, target.dialAddr)
		}
		delivery := r.Header.Get("X-GitHub-Delivery")
		if len(delivery) != 36 || seen[delivery] {
			t.Errorf("delivery id %q is not a new UUID", delivery)
		}
		seen[delivery] = true
	}
}
