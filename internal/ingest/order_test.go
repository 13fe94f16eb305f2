package ingest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/jsonpath"
	"github.com/kapsel-dev/kapsel/internal/route"
)

func TestOrderKeyStandsWhereTheDestinationSays(t *testing.T) {
	w := Webhook{Header: http.Header{"X-Key": {"a"}}, Body: []byte(`{"data":{"id":"a","none":"","n":7}}`)}
	byHeader := func(name string) *route.Destination {
		return &route.Destination{Ordering: route.Ordering{Header: name}}
	}
	byPath := func(path string) *route.Destination {
		return &route.Destination{Ordering: route.Ordering{JSONPath: jsonpath.Parse(path)}}
	}
	if got := orderKey(byHeader("X-Key"), w); len(got) != keyHashBytes || !bytes.Equal(got, orderKey(byPath("data.id"), w)) {
		t.Errorf("one key by header and by path: %x", got)
	}
	if bytes.Equal(orderKey(byPath("data.n"), w), orderKey(byPath("data.id"), w)) {
		t.Error("two keys are one")
	}
	for _, destination := range []*route.Destination{{}, byHeader("X-Other"), byPath("data.none"), byPath("no.such")} {
		if got := orderKey(destination, w); got != nil {
			t.Errorf("ordering %+v gives %x, want no key", destination.Ordering, got)
		}
	}
}

// A source that sends the next event of a key when it has the receipt of the last one has them arrive in that order.
func TestEventsOfAKeyArriveInTheOrderOfTheirReceipts(t *testing.T) {
	const keys, events = 6, 12
	r := newRig(t, 5*time.Second)
	var mu sync.Mutex
	took := make(map[string][]int)
	failures := 0
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		mu.Lock()
		defer mu.Unlock()
		if failures++; failures%9 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var key string
		var number int
		fmt.Sscanf(string(body), `{"key":%q,"number":%d}`, &key, &number)
		took[key] = append(took[key], number)
	}))
	defer sink.Close()
	r.exec(`update destinations set url = $1, ordering = '{"jsonPath":"key"}', retry_policy = '{"schedule":["0.01s"],"maxAttempts":20,"jitter":0}'`, sink.URL)
	r.refresh()
	stop := start(r.claimer.Run)
	defer stop()
	var sources sync.WaitGroup
	for key := range keys {
		sources.Go(func() {
			for number := range events {
				body := fmt.Sprintf(`{"key":"k%d","number":%d}`, key, number)
				if _, err := r.Accept(t.Context(), r.webhook("", body)); err != nil {
					t.Errorf("accept: %v", err)
				}
				if number%4 == 0 { // some of no key, in the same batches
					if _, err := r.Accept(t.Context(), r.webhook("", `{"key":"","number":0}`)); err != nil {
						t.Errorf("accept: %v", err)
					}
				}
			}
		})
	}
	sources.Wait()
	r.await(0, "select count(*) from delivery_queue")
	mu.Lock()
	defer mu.Unlock()
	for key := range keys {
		if got := took[fmt.Sprint("k", key)]; len(got) != events || !slices.IsSorted(got) {
			t.Errorf("key %d arrived as %v", key, got)
		}
	}
	if got, want := len(took[""]), keys*events/4; got != want {
		t.Errorf("%d events without a key arrived, want %d", got, want)
	}
}

func TestUnorderedDeliveriesCarryNoOrder(t *testing.T) {
	r := newRig(t, 5*time.Second)
	r.exec(`update destinations set max_in_flight = 1, url = 'http://127.0.0.1:1/'`)
	r.refresh()
	r.accept(r.webhook("", "{}"))
	if got := r.count("select count(*) from delivery_queue where order_key is null and order_seq is null and due_at < now() + interval '1 hour'"); got != 1 {
		t.Errorf("%d deliveries without an order, want 1", got)
	}
}
