package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
)

// KeyHeader carries a webhook's key, where Config.Keys asks for one.
const KeyHeader = "X-Bench-Key"

// maxKeys is what fits the digits of a key.
const maxKeys = 1 << 32

// OrderedResult says what it costs that a destination gets the events of a key one after the other.
type OrderedResult struct {
	OrderedPerSecond   float64 `json:"ordered_per_s"`
	UnorderedPerSecond float64 `json:"unordered_per_s"`
	// Ratio of the first to the second: 1 when order costs nothing.
	Ratio float64 `json:"ratio"`
	// Of the time from when a webhook was due to its whole body at the sink.
	OrderedP50   float64 `json:"ordered_p50_ms"`
	OrderedP99   float64 `json:"ordered_p99_ms"`
	UnorderedP50 float64 `json:"unordered_p50_ms"`
	UnorderedP99 float64 `json:"unordered_p99_ms"`
	Keys         int     `json:"keys"`
	// OutOfOrder counts the webhooks that came to the ordered destination before another one of their key whose 202 was read
	// before they were sent.
	OutOfOrder int64 `json:"out_of_order"`
	Footprint
	Lost       int64 `json:"lost"` // both times together
	Duplicated int64 `json:"duplicated"`
	// Unordered and Ordered are the two measurements in full, seals and proofs not timed.
	Unordered Result `json:"unordered"`
	Ordered   Result `json:"ordered"`
}

// RunOrdered measures the same load twice on the same server: to an endpoint whose destination keeps no order, then to one
// whose destination orders by KeyHeader. Both have as many keys. Errors are as those of Run.
func RunOrdered(ctx context.Context, unordered, ordered Config, sink *Sink, server Server) (OrderedResult, error) {
	if err := errors.Join(unordered.Validate(), ordered.Validate()); err != nil {
		return OrderedResult{}, err
	}
	defer sink.ledger.Store(nil)
	r := OrderedResult{Keys: ordered.Keys}
	var err error
	if r.Unordered, err = settleAndMeasure(ctx, unordered.withDefaults(), sink, server); err == nil {
		r.Ordered, err = settleAndMeasure(ctx, ordered.withDefaults(), sink, server)
	}
	r.OrderedPerSecond, r.UnorderedPerSecond = r.Ordered.DeliveredPerSecond, r.Unordered.DeliveredPerSecond
	r.Ratio = ratio(r.OrderedPerSecond, r.UnorderedPerSecond)
	r.OrderedP50, r.OrderedP99, r.UnorderedP50, r.UnorderedP99 = r.Ordered.E2EP50, r.Ordered.E2EP99, r.Unordered.E2EP50, r.Unordered.E2EP99
	r.OutOfOrder = r.Ordered.OutOfOrder
	r.Lost, r.Duplicated = r.Unordered.Lost+r.Ordered.Lost, r.Unordered.Duplicated+r.Ordered.Duplicated
	if err != nil {
		return r, err
	}
	r.Footprint, err = measureFootprint(ctx, server)
	return r, err
}

// Err says why the run does not count: one of its measurements does not, or the order was not kept.
func (r OrderedResult) Err() error {
	var errs []error
	if err := r.Unordered.Err(); err != nil {
		errs = append(errs, fmt.Errorf("without order: %w", err))
	}
	if err := r.Ordered.Err(); err != nil {
		errs = append(errs, fmt.Errorf("ordered: %w", err))
	}
	if r.OutOfOrder > 0 {
		errs = append(errs, fmt.Errorf("%d webhooks came before an earlier one of their key", r.OutOfOrder))
	}
	return errors.Join(errs...)
}

// WriteTable prints the result for people.
func (r OrderedResult) WriteTable(w io.Writer) error {
	if err := r.Ordered.writeLoad(w); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "destination\tdelivered\tper second\tp50 ms\tp99 ms\tunsent\t\n")
	for _, row := range []struct {
		name string
		r    Result
	}{{"without order", r.Unordered}, {fmt.Sprintf("ordered, %d keys", r.Keys), r.Ordered}} {
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.2f\t%.2f\t%d\t\n", row.name, row.r.Delivered, row.r.DeliveredPerSecond, row.r.E2EP50, row.r.E2EP99, row.r.Unsent)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nordered: %.2f times as many a second as without order\nlost %d, duplicated %d, out of order %d\n%s\n",
		r.Ratio, r.Lost, r.Duplicated, r.OutOfOrder, r.Footprint)
	return err
}

// outOfOrder counts the webhooks that came before an earlier one of their key, whose 202 had been read before they were sent.
// An id's key is its remainder by keys. Each webhook is held against the one before it in its key.
func (l *ledger) outOfOrder(keys int) (n int64) {
	for id := uint64(keys); id < l.issued(); id++ {
		before, after := l.at(id-uint64(keys)), l.at(id)
		acked, first, second := before.ackedNs.Load(), before.receivedNs.Load(), after.receivedNs.Load()
		if acked != 0 && acked < after.sentNs.Load() && second != 0 && (first == 0 || second < first) {
			n++
		}
	}
	return n
}
