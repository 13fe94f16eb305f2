package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"
)

// FloodFactor is how many times its limit a flooding tenant sends.
const FloodFactor = 20

// Flood is the load of a tenant that sends FloodFactor times what it may, whatever Retry-After says.
type Flood struct {
	IngestURL, Secret string
	// Limit is what the tenant may send: webhooks a second, and as many at once.
	Limit int
	Sink  *Sink
}

// LimitResult says what a tenant over its limit does to the latency of the others, from when a webhook was due to its
// whole body at the sink.
type LimitResult struct {
	OthersP99          float64 `json:"others_p99_ms"`
	OthersP99WithFlood float64 `json:"others_p99_with_flood_ms"`
	// Ratio of the two: 1 when the flood is not noticed.
	Ratio           float64 `json:"ratio"`
	Refused         int64   `json:"refused"`           // of the flood, with status 429
	AcceptedOfFlood int64   `json:"accepted_of_flood"` // warm-up not included
	// RetryAfter is what the tenant was told once the flood was over, and AcceptedAfterRetry whether it got in then.
	RetryAfter         float64 `json:"retry_after_s"`
	AcceptedAfterRetry bool    `json:"accepted_after_retry"`
	OthersRefused      int64   `json:"others_refused"`
	Limit              int     `json:"limit_per_s"`
	// Alone and WithFlood are the others' two measurements in full. The flood's attempts count among WithFlood's recorded and
	// sealed ones.
	Alone     Result `json:"alone"`
	WithFlood Result `json:"with_flood"`
	Flood     Result `json:"flood"`
}

// RunLimit measures cfg's load alone, and beside a flood. A latency means something below saturation only, so cfg.Rate
// should be set. Errors are as those of Run.
func RunLimit(ctx context.Context, cfg Config, sink *Sink, server Server, flood Flood) (LimitResult, error) {
	r := LimitResult{Limit: flood.Limit}
	floodCfg := cfg
	floodCfg.IngestURL, floodCfg.Secret, floodCfg.Impatient = flood.IngestURL, flood.Secret, true
	floodCfg.Progress = nil // both at once would contradict each other
	floodCfg.Rate = float64(FloodFactor * flood.Limit)
	err := errors.Join(cfg.Validate(), floodCfg.Validate())
	if flood.Limit < 1 {
		err = errors.Join(err, fmt.Errorf("limit: %d is not a positive number of webhooks a second", flood.Limit))
	}
	if err != nil {
		return r, err
	}
	cfg, floodCfg = cfg.withDefaults(), floodCfg.withDefaults()
	defer sink.ledger.Store(nil)
	defer flood.Sink.ledger.Store(nil)

	if r.Alone, err = settleAndMeasure(ctx, cfg, sink, server); err != nil {
		return r, fmt.Errorf("without a flood: %w", err)
	}
	flooded := make(chan error, 1)
	go func() {
		var err error
		r.Flood, err = settleAndMeasure(ctx, floodCfg, flood.Sink, server)
		flooded <- err
	}()
	r.WithFlood, err = settleAndMeasure(ctx, cfg, sink, server)
	if err := errors.Join(err, <-flooded); err != nil {
		return r, fmt.Errorf("with a flood: %w", err)
	}
	r.OthersP99, r.OthersP99WithFlood = r.Alone.E2EP99, r.WithFlood.E2EP99
	r.Ratio = ratio(r.OthersP99WithFlood, r.OthersP99)
	r.Refused, r.AcceptedOfFlood = r.Flood.Rejected[http.StatusTooManyRequests], r.Flood.Accepted
	r.OthersRefused = r.Alone.Rejected[http.StatusTooManyRequests] + r.WithFlood.Rejected[http.StatusTooManyRequests]
	return r, r.comeAgain(ctx, floodCfg)
}

// comeAgain sends as the flooding tenant until it is refused, waits for as long as it is told to, and sends once more.
func (r *LimitResult) comeAgain(ctx context.Context, cfg Config) error {
	cfg.Conns = 1
	g, err := newGenerator(ctx, cfg, newLedger())
	if err != nil {
		return err
	}
	defer g.close()
	w := g.workers[0]
	status, retryAfter := http.StatusAccepted, time.Duration(0)
	id := uint64(0)
	for ; status == http.StatusAccepted && id < maxWebhooks; id++ {
		if status, retryAfter, err = w.exchange(id); err != nil {
			return err
		}
	}
	if status != http.StatusTooManyRequests {
		return fmt.Errorf("webhook %d of a row was answered with status %d instead of 429", id, status)
	}
	r.RetryAfter = retryAfter.Seconds()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(retryAfter):
	}
	status, _, err = w.exchange(id)
	r.AcceptedAfterRetry = status == http.StatusAccepted
	return err
}

// Err says why the run does not count: a measurement of the others does not, or the limit did not hold.
func (r LimitResult) Err() error {
	var errs []error
	if err := r.Alone.Err(); err != nil {
		errs = append(errs, fmt.Errorf("without a flood: %w", err))
	}
	if err := r.WithFlood.Err(); err != nil {
		errs = append(errs, fmt.Errorf("with a flood: %w", err))
	}
	if r.Flood.Lost != 0 {
		errs = append(errs, fmt.Errorf("%d accepted webhooks of the flood were not delivered", r.Flood.Lost))
	}
	if r.OthersRefused > 0 {
		errs = append(errs, fmt.Errorf("%d webhooks of the others were refused", r.OthersRefused))
	}
	// A full bucket at the start, and the last second begun.
	if most := int64(float64(r.Limit) * (r.Flood.Seconds + 2)); r.AcceptedOfFlood > most || r.Refused == 0 {
		errs = append(errs, fmt.Errorf("of the flood %d were accepted and %d refused: at %d a second at most %d may be", r.AcceptedOfFlood, r.Refused, r.Limit, most))
	}
	if !r.AcceptedAfterRetry {
		errs = append(errs, fmt.Errorf("after the %g s of Retry-After the tenant did not get in", r.RetryAfter))
	}
	return errors.Join(errs...)
}

// WriteTable prints the result for people.
func (r LimitResult) WriteTable(w io.Writer) error {
	if err := r.Alone.writeLoad(w); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "other tenant\tdelivered\tper second\tp50 ms\tp99 ms\tack p99 ms\tunsent\t\n")
	for _, row := range []struct {
		name string
		r    Result
	}{{"alone", r.Alone}, {"beside a flood", r.WithFlood}} {
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.2f\t%.2f\t%.2f\t%d\t\n", row.name, row.r.Delivered, row.r.DeliveredPerSecond, row.r.E2EP50, row.r.E2EP99, row.r.AckP99, row.r.Unsent)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\np99 beside a tenant at %d times its limit: %.2f times that without\nthe flood, limited to %d a second: accepted %d, refused %d, unsent %d; Retry-After %g s, accepted after that: %t\nothers refused %d, lost %d, duplicated %d\n",
		FloodFactor, r.Ratio, r.Limit, r.AcceptedOfFlood, r.Refused, r.Flood.Unsent, r.RetryAfter, r.AcceptedAfterRetry,
		r.OthersRefused, r.WithFlood.Lost, r.WithFlood.Duplicated)
	return err
}
