package bench

import (
	"context"
	"fmt"
	"io"
)

// InFlightResult says how many deliveries the server had out at once to a slow sink.
type InFlightResult struct {
	// DeliveredPerSecond counts until the last delivery was answered.
	DeliveredPerSecond float64 `json:"delivered_per_s"`
	// PeakInFlight is the largest number of deliveries that waited for the sink's answer at once.
	PeakInFlight int64   `json:"peak_in_flight"`
	SinkSeconds  float64 `json:"sink_s"` // that the sink takes for each
	Footprint
	Lost       int64 `json:"lost"`
	Duplicated int64 `json:"duplicated"`
	// Load is the measurement in full, seals and proofs not timed. Its delivered_per_s counts until the last delivery came, unanswered yet.
	Load Result `json:"load"`
}

// RunInFlight puts cfg's load on a server whose endpoint delivers to a slow sink, and waits
// until all is delivered. Errors are as those of Run.
func RunInFlight(ctx context.Context, cfg Config, sink *Sink, server Server) (InFlightResult, error) {
	if err := cfg.Validate(); err != nil {
		return InFlightResult{}, err
	}
	cfg = cfg.withDefaults()
	defer sink.ledger.Store(nil)
	warm, err := warmUp(ctx, cfg, sink, server)
	if err != nil {
		return InFlightResult{}, err
	}
	p, err := runPhase(ctx, cfg, stageLoad, cfg.Duration, sink, server)
	r := InFlightResult{
		DeliveredPerSecond: perSecond(p.delivered, p.lastReceivedNs+int64(sink.delay)),
		PeakInFlight:       sink.peak.Load(), SinkSeconds: sink.delay.Seconds(), Load: newResult(cfg, warm, p),
	}
	r.Lost, r.Duplicated = r.Load.Lost, r.Load.Duplicated
	if err != nil {
		return r, err
	}
	r.Footprint, err = measureFootprint(ctx, server)
	return r, err
}

// Err says why the run does not count, as Result.Err does.
func (r InFlightResult) Err() error { return r.Load.Err() }

// WriteTable prints the result for people.
func (r InFlightResult) WriteTable(w io.Writer) error {
	if err := r.Load.writeLoad(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "a sink that takes %g s: %.0f deliveries a second, at most %d in flight at once\naccepted %d, delivered %d, lost %d, duplicated %d\n%s\nother answers: %s; connection errors: %d; unsent: %d\n",
		r.SinkSeconds, r.DeliveredPerSecond, r.PeakInFlight, r.Load.Accepted, r.Load.Delivered, r.Lost, r.Duplicated,
		r.Footprint, r.Load.rejections(), r.Load.ConnectionErrors, r.Load.Unsent)
	return err
}
