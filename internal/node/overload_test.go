package node

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Sources send many large webhooks at once, while the database is slow and the sink slower: what a node holds stays
// bounded, sources are told to come again, and what was acknowledged arrives.
func TestFloodOfLargeWebhooksIsRefusedBeforeMemoryGrows(t *testing.T) {
	const (
		bodyBytes = 1 << 20
		sources   = 400 // with a body each: more than a node may hold
		// What waits for a commit (64 MiB), what waits for a send (96 MiB), and what is being read and written: the server's
		// bound for bodies is 256 MiB, and the statement of a batch holds its 8 MiB some times.
		maxHeap = 512 << 20
	)
	defer debug.SetGCPercent(debug.SetGCPercent(20)) // what is not held is collected soon
	// No source is told to come again while its webhook is being written: that could be stored all the same, and wait for the
	// end of its lease.
	r, n := one(t, func(c *Config) { c.Hold = patience })
	r.exec("update destinations set max_in_flight = 8")
	r.refresh(n)
	r.sink.answers(func(*http.Request, string, int) int {
		time.Sleep(20 * time.Millisecond)
		return http.StatusOK
	})
	body := func(key string) []byte {
		return append([]byte(`{"key":"`+key+`","noise":"`), append(bytes.Repeat([]byte("x"), bodyBytes-100), `"}`...)...)
	}
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)

	// The database takes nothing for a while.
	owner, err := r.owner.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Exec(t.Context(), "begin; lock table events in share mode"); err != nil {
		t.Fatal(err)
	}
	var refused atomic.Int64
	var mu sync.Mutex
	var acked []string
	var group sync.WaitGroup
	shared := body("flood") // the sources' own memory is not the node's
	for i := range sources {
		group.Go(func() {
			key := fmt.Sprintf("flood-%d", i)
			switch status, header := r.post(n, key, shared); {
			case status == http.StatusAccepted:
				mu.Lock()
				acked = append(acked, key)
				mu.Unlock()
			case status == http.StatusServiceUnavailable && header.Get("Retry-After") != "":
				refused.Add(1)
			case status != 0: // a connection that is closed while the body is sent has no status
				t.Errorf("status %d, Retry-After %q", status, header.Get("Retry-After"))
			}
		})
	}
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	most := uint64(0)
	unlock := time.After(700 * time.Millisecond)
	for running := true; running; {
		select {
		case <-done:
			running = false
		case <-unlock:
			if _, err := owner.Exec(t.Context(), "rollback"); err != nil {
				t.Fatal(err)
			}
			owner.Release()
		case <-time.After(20 * time.Millisecond):
		}
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		most = max(most, now.HeapAlloc)
	}
	if most > before.HeapAlloc+maxHeap {
		t.Errorf("the heap grew to %d MiB", most>>20)
	}
	if refused.Load() == 0 {
		t.Error("nothing was refused")
	}
	t.Logf("%d acknowledged, %d refused, heap up to %d MiB", len(acked), refused.Load(), most>>20)
	eventually(t, "sources are welcome again", func() bool {
		status, _ := r.post(n, "after", []byte(`{"key":"after"}`))
		return status == http.StatusAccepted
	})
	r.settled([]string{"after"})
	if got := r.sink.requests(); got < len(acked)+1 {
		t.Errorf("%d webhooks arrived, %d were acknowledged", got, len(acked)+1)
	}
}
