package bench

import (
	"context"
	"fmt"
	"time"
)

// shortestNap keeps a fast schedule from waking for every single webhook: above 20,000
// webhooks a second they are released by the handful.
const shortestNap = 50 * time.Microsecond

// ticket is one webhook of an open loop.
type ticket struct {
	id    uint64
	dueNs int64 // on the ledger's clock
}

// schedule spaces webhooks evenly: number n is due at n/rate seconds, whatever became of
// those before it.
type schedule struct {
	ledger *ledger
	rate   float64 // webhooks a second
	endNs  int64   // on the ledger's clock
}

// release hands out each ticket when it falls due, and returns how many were not handed
// out by the end because every connection was busy.
func (s schedule) release(ctx context.Context, out chan<- ticket) (unsent int64, err error) {
	total := int64(s.rate * float64(s.endNs) / 1e9)
	nap, err := newNapper(ctx)
	if err != nil {
		return total, fmt.Errorf("pace the load: %w", err)
	}
	defer nap.close()
	end := time.NewTimer(time.Duration(s.endNs - s.ledger.now()))
	defer end.Stop()

	for n := int64(0); n < total; n++ {
		due := int64(float64(n) / s.rate * 1e9)
		if wait := due - s.ledger.now(); wait > 0 {
			if err := nap.sleep(max(time.Duration(wait), shortestNap)); err != nil {
				return total - n, fmt.Errorf("pace the load: %w", err)
			}
		}
		id, ok := s.ledger.issue()
		if !ok {
			return total - n, nil
		}
		select {
		case out <- ticket{id, due}:
		case <-end.C:
			return total - n, nil
		case <-ctx.Done():
			return total - n, nil
		}
	}
	return 0, nil
}
