package node

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// One rate holds over all nodes: two that are flooded at once take in together what one might, and each of them a part.
func TestRateIsSharedByNodes(t *testing.T) {
	const burst, offered, workers = 200, 240, 4
	r, a := one(t, nil)
	b := r.start(r.config())
	r.exec("update tenants set ingest_per_second = 1, ingest_burst = $1", burst)
	r.refresh(a, b)
	eventually(t, "both nodes know of each other", func() bool { // by their second heartbeat since both are there
		return r.count("select count(*) from nodes where heartbeat_at > (select max(started_at) from nodes) + interval '1500 ms'") == 2
	})

	began := time.Now()
	var taken [2]atomic.Int64
	var flooding sync.WaitGroup
	for i, n := range []*Node{a, b} {
		for worker := range workers {
			flooding.Go(func() {
				for webhook := range offered / workers {
					status, header := r.post(n, fmt.Sprint(i, worker, webhook), []byte("{}"))
					switch seconds, _ := strconv.Atoi(header.Get("Retry-After")); {
					case status == http.StatusAccepted:
						taken[i].Add(1)
					case status != http.StatusTooManyRequests || seconds < 1 || seconds > 60:
						t.Errorf("status %d, Retry-After %q", status, header.Get("Retry-After"))
					}
				}
			})
		}
	}
	flooding.Wait()
	// What the tenant's second adds, and what shares shift while the nodes learn of each other's demand.
	slack := int64(2*time.Since(began).Seconds()) + burst/10
	if sum := taken[0].Load() + taken[1].Load(); sum < burst-slack || sum > burst+slack {
		t.Errorf("two nodes took %d at once, want %d (give or take %d)", sum, burst, slack)
	}
	for i := range taken {
		if n := taken[i].Load(); n < burst/4 || n > burst*3/4 {
			t.Errorf("node %d took %d of %d, want about half", i, n, burst)
		}
	}
}
