package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
)

// ListenWay is one way of webhooks to a listening app: the node that they are posted to, seen from the node with the stream.
type ListenWay struct {
	Name string `json:"name"`
	// Of the time from the 202 to the whole body at the app; 0 if overtaken.
	AckedP50 float64 `json:"acked_p50_ms"`
	AckedP90 float64 `json:"acked_p90_ms"`
	AckedP99 float64 `json:"acked_p99_ms"`
	AckedMax float64 `json:"acked_max_ms"`
	// Of the time from when a webhook was due to the whole body at the app.
	DueP50 float64 `json:"due_p50_ms"`
	DueP90 float64 `json:"due_p90_ms"`
	DueP99 float64 `json:"due_p99_ms"`
	DueMax float64 `json:"due_max_ms"`
	// Load is the measurement in full, seals and proofs not timed.
	Load Result `json:"load"`
}

// ListenResult says how soon a webhook is at an app that listens through a stream.
type ListenResult struct {
	Ways []ListenWay `json:"ways"`
	Footprint
	Lost       int64 `json:"lost"` // of all ways together
	Duplicated int64 `json:"duplicated"`
}

// ListenRun is a way to measure.
type ListenRun struct {
	Name   string
	Config Config
}

// RunListen puts one load after the other on a server whose endpoints are listened to by an app that forwards to sink. Errors
// are as those of Run.
func RunListen(ctx context.Context, runs []ListenRun, sink *Sink, server Server) (ListenResult, error) {
	defer sink.ledger.Store(nil)
	var r ListenResult
	for _, run := range runs {
		if err := run.Config.Validate(); err != nil {
			return r, err
		}
		way, err := measureListening(ctx, run.Name, run.Config.withDefaults(), sink, server)
		r.Ways = append(r.Ways, way)
		r.Lost, r.Duplicated = r.Lost+way.Load.Lost, r.Duplicated+way.Load.Duplicated
		if err != nil {
			return r, err
		}
	}
	var err error
	r.Footprint, err = measureFootprint(ctx, server)
	return r, err
}

func measureListening(ctx context.Context, name string, cfg Config, sink *Sink, server Server) (ListenWay, error) {
	way := ListenWay{Name: name}
	if err := server.Settle(ctx); err != nil {
		return way, err
	}
	warm, err := warmUp(ctx, cfg, sink, server)
	if err != nil {
		return way, err
	}
	p, err := runPhase(ctx, cfg, stageLoad, cfg.Duration, sink, server)
	way.Load = newResult(cfg, warm, p)
	way.AckedP50, way.AckedP90, way.AckedP99, way.AckedMax = p.delivery.ms(50), p.delivery.ms(90), p.delivery.ms(99), p.delivery.ms(100)
	way.DueP50, way.DueP90, way.DueP99, way.DueMax = p.e2e.ms(50), p.e2e.ms(90), p.e2e.ms(99), p.e2e.ms(100)
	return way, err
}

// Err says why the run does not count: one of its measurements does not.
func (r ListenResult) Err() error {
	var errs []error
	for _, way := range r.Ways {
		if err := way.Load.Err(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", way.Name, err))
		}
	}
	return errors.Join(errs...)
}

// WriteTable prints the result for people.
func (r ListenResult) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "posted to\twebhooks\tp50 ms\tp90 ms\tp99 ms\tmax ms\tfrom when due: p50 ms\tp90 ms\tp99 ms\tmax ms\t\n")
	for _, way := range r.Ways {
		fmt.Fprintf(t, "%s\t%d\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t\n", way.Name, way.Load.Delivered,
			way.AckedP50, way.AckedP90, way.AckedP99, way.AckedMax, way.DueP50, way.DueP90, way.DueP99, way.DueMax)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\nfrom the 202 to the app\nlost %d, duplicated %d\n%s\n", r.Lost, r.Duplicated, r.Footprint)
	return err
}
