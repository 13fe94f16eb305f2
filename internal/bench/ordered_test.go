package bench

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// Two endpoints: what goes to the second takes longer.
func TestOrderedScenarioComparesThroughput(t *testing.T) {
	b := &busyForwarder{forwarder: startForwarder(t)}
	var mu sync.Mutex
	seen := make(map[string]int) // webhooks by key
	b.answer = func(w http.ResponseWriter, r *http.Request, id uint64) int {
		key := r.Header.Get(KeyHeader)
		mu.Lock()
		seen[key]++
		mu.Unlock()
		if want := fmt.Sprintf("%08x", id%3); key != want {
			t.Errorf("webhook %d has key %q, want %q", id, key, want)
		}
		if strings.Contains(r.URL.RawQuery, "ordered") {
			time.Sleep(20 * time.Millisecond)
		}
		w.WriteHeader(http.StatusAccepted)
		return 1
	}
	cfg := Config{IngestURL: b.url, Secret: testSecret, Conns: 4, Keys: 3, Duration: 400 * time.Millisecond}
	ordered := cfg
	ordered.IngestURL += "?ordered"
	r, err := RunOrdered(t.Context(), cfg, ordered, b.sink, b)
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) != 3 || r.Keys != 3 || r.Connections != 7 || r.Lost != 0 {
		t.Errorf("keys %v, %+v", seen, r)
	}
	if r.OrderedPerSecond <= 0 || r.OrderedPerSecond >= r.UnorderedPerSecond || r.Ratio != r.OrderedPerSecond/r.UnorderedPerSecond {
		t.Errorf("%.0f and %.0f a second, ratio %.2f: want fewer when ordered", r.UnorderedPerSecond, r.OrderedPerSecond, r.Ratio)
	}
	r.OutOfOrder = 1
	if err := r.Err(); err == nil || !strings.Contains(err.Error(), "before an earlier one") {
		t.Errorf("a run that did not keep the order: %v", err)
	}
}

func TestOnlyWhatWasSentAfterAReceiptHasAnOrder(t *testing.T) {
	type times struct{ sent, acked, received int64 }
	for name, test := range map[string]struct {
		webhooks []times // of keys 0 and 1 in turn
		want     int64
	}{
		"in order":                      {[]times{{1, 5, 9}, {1, 5, 9}, {6, 8, 10}, {6, 8, 10}}, 0},
		"the later one came first":      {[]times{{1, 5, 12}, {1, 5, 9}, {6, 8, 10}, {6, 8, 10}}, 1},
		"the earlier one never came":    {[]times{{1, 5, 9}, {1, 5, 0}, {6, 8, 10}, {6, 8, 10}}, 1},
		"under way at the same time":    {[]times{{1, 5, 12}, {1, 5, 9}, {4, 8, 10}, {6, 8, 10}}, 0},
		"the earlier one has no 202":    {[]times{{1, 0, 12}, {1, 5, 9}, {6, 8, 10}, {6, 8, 10}}, 0},
		"other keys are nobody's order": {[]times{{1, 2, 20}, {3, 4, 5}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLedger()
			for _, w := range test.webhooks {
				id, _ := l.issue()
				l.sent(id, w.sent)
				l.acked(id, w.acked)
				l.at(id).receivedNs.Store(w.received)
			}
			if got := l.outOfOrder(2); got != test.want {
				t.Errorf("%d out of order, want %d", got, test.want)
			}
		})
	}
}
