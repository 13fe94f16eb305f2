package bench

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// After a refusal with Retry-After the connection waits that long, up to a bound that
	// lets a short run see the recovery; without one it waits the shortest pause.
	shortestPause = 5 * time.Millisecond
	longestPause  = 5 * time.Second
)

// generator puts one run's load on the ingest URL.
type generator struct {
	target  target
	ledger  *ledger
	workers []*worker
}

// worker is one keep-alive connection with at most one webhook in flight.
type worker struct {
	target    target
	ledger    *ledger
	webhook   *webhook
	impatient bool
	tally     tally

	conn       net.Conn // nil between connections
	in         *stream
	untie      func() bool // conn no longer closes when the context ends
	deadlineNs int64       // when conn's deadline is to be renewed, on the ledger's clock
}

// tally counts what did not become an accepted webhook.
type tally struct {
	// refused is the number of answers other than 202, by status.
	refused map[int]int64
	// failures is the number of failed connects and of requests without a whole answer.
	failures int64
	// unsent is the number of webhooks that no connection was free for, or open, in time.
	unsent int64
}

func (t *tally) add(o tally) {
	for status, n := range o.refused {
		t.refused[status] += n
	}
	t.failures += o.failures
	t.unsent += o.unsent
}

// newGenerator opens every connection, so that no webhook's latency includes a handshake.
func newGenerator(ctx context.Context, cfg Config, l *ledger) (*generator, error) {
	t, err := parseTarget(cfg.IngestURL)
	if err != nil {
		return nil, err
	}
	g := &generator{target: t, ledger: l}
	payload := newPayload(l.run, cfg.PayloadBytes)
	for range cfg.Conns {
		w := &worker{
			target: t, ledger: l, impatient: cfg.Impatient,
			webhook: newWebhook(t, cfg.Secret, l.run, cfg.Keys, payload),
			tally:   tally{refused: make(map[int]int64)},
		}
		g.workers = append(g.workers, w)
		if err := w.connect(ctx); err != nil {
			g.close()
			return nil, fmt.Errorf("connect to the ingest URL: %w", err)
		}
	}
	return g, nil
}

func (g *generator) close() {
	for _, w := range g.workers {
		w.disconnect()
	}
}

// run sends for d, then waits for the answers still out.
func (g *generator) run(ctx context.Context, d time.Duration, rate float64) (tally, error) {
	all := tally{refused: make(map[int]int64)}
	end := int64(d)
	var failed error
	var sending sync.WaitGroup
	if rate == 0 {
		for _, w := range g.workers {
			sending.Go(func() { w.sendUntil(ctx, end) })
		}
	} else {
		due := make(chan ticket, len(g.workers))
		for _, w := range g.workers {
			sending.Go(func() { w.sendDue(ctx, end, due) })
		}
		s := schedule{ledger: g.ledger, rate: rate, endNs: end}
		unsent, err := s.release(ctx, due)
		close(due)
		all.unsent, failed = unsent, err
	}
	sending.Wait()
	for _, w := range g.workers {
		all.add(w.tally)
	}
	if err := ctx.Err(); err != nil {
		return all, err
	}
	return all, failed
}

// sendUntil is the closed loop: the next webhook follows the last one's answer.
func (w *worker) sendUntil(ctx context.Context, endNs int64) {
	for ctx.Err() == nil {
		now := w.ledger.now()
		if now >= endNs {
			return
		}
		id, ok := w.ledger.issue()
		if !ok {
			return
		}
		w.ledger.sent(id, now)
		for w.post(ctx, id, endNs) == askedToWait {
		}
	}
}

// sendDue is the open loop: it sends each webhook that falls due, late ones too, and does
// not repeat a refused one, for the schedule goes on.
func (w *worker) sendDue(ctx context.Context, endNs int64, due <-chan ticket) {
	for t := range due {
		if ctx.Err() != nil {
			continue
		}
		w.ledger.sent(t.id, t.dueNs)
		w.post(ctx, t.id, endNs)
	}
}

// fate is what became of one post.
type fate int

const (
	settled     fate = iota // acked, refused for good, or outcome unknown: on to the next one
	askedToWait             // refused for now: the pause is over, the load is not
)

// post sends one webhook over a working connection and books the answer. A request that
// breaks off stays unacked: the server may have committed it or not, and a second try
// would make its delivery look like a duplicate or hide a loss.
func (w *worker) post(ctx context.Context, id uint64, endNs int64) fate {
	for w.conn == nil {
		err := w.connect(ctx)
		if err == nil {
			break
		}
		w.tally.failures++
		if !w.pause(ctx, shortestPause, endNs) {
			w.tally.unsent++
			return settled
		}
	}
	status, retryAfter, err := w.exchange(id)
	if err != nil {
		w.tally.failures++
		w.disconnect()
		w.pause(ctx, shortestPause, endNs)
		return settled
	}
	if status == http.StatusAccepted {
		w.ledger.acked(id, w.ledger.now())
		return settled
	}
	w.tally.refused[status]++
	if w.impatient || status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
		return settled
	}
	if !w.pause(ctx, min(max(retryAfter, shortestPause), longestPause), endNs) {
		return settled
	}
	return askedToWait
}

// pause waits for d, and reports false, at once, if sending ends before.
func (w *worker) pause(ctx context.Context, d time.Duration, endNs int64) bool {
	if w.ledger.now()+int64(d) >= endNs {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
