package ingest

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/signature"
)

// webhookOf makes a signed webhook of 1 KiB and its endpoint.
func webhookOf(t testing.TB, preset string) Webhook {
	t.Helper()
	body := append([]byte(`{"id":"evt_1","type":"invoice.paid","event_id":"Ev1","event":{"type":"message"},"text":"`), bytes.Repeat([]byte("x"), 900)...)
	body = append(body, `"}`...)
	config := signature.Config{Preset: preset}
	verifier, err := signature.NewVerifier(config, [][]byte{[]byte("secret")})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	header, err := signature.Sign(config, []byte("secret"), body, now, "delivery-1")
	if err != nil {
		t.Fatal(err)
	}
	header.Set("X-Github-Event", "push")
	return Webhook{
		Endpoint: &route.Endpoint{Verifier: verifier, Preset: preset, Dedup: route.Dedup{Window: time.Hour}},
		Method:   http.MethodPost, Header: header, Body: body, ReceivedAt: now,
	}
}

// maxDecisionAllocations is what all that is decided about a webhook before it is stored may allocate: the event, its
// header lines, its key and what the committer gets. Paths into the payload cost one each.
var maxDecisionAllocations = map[string]float64{"github": 9, "stripe": 10, "slack": 11}

func TestDecidingAboutAWebhookAllocatesLittle(t *testing.T) {
	for preset, most := range maxDecisionAllocations {
		w := webhookOf(t, preset)
		n := testing.AllocsPerRun(200, func() {
			if err := w.Endpoint.Verifier.Verify(w.request(), w.ReceivedAt); err != nil {
				t.Fatal(err)
			}
			if p := newPending(w, preset); p.key == "" || p.event.Type == "" {
				t.Fatalf("key %q, type %q", p.key, p.event.Type)
			}
		})
		if n > most && !raceEnabled {
			t.Errorf("%s: %v allocations, at most %v", preset, n, most)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, preset := range []string{"github", "stripe", "slack"} {
		b.Run(preset, func(b *testing.B) {
			w := webhookOf(b, preset)
			b.ReportAllocs()
			for b.Loop() {
				if err := w.Endpoint.Verifier.Verify(w.request(), w.ReceivedAt); err != nil {
					b.Fatal(err)
				}
				newPending(w, preset)
			}
		})
	}
}
