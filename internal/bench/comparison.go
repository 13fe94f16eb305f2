package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
)

// Comparison is the same load twice on the same server: first with nothing else to do, then
// while another destination is dead and has a backlog. The dead destination's attempts count
// among WithDead's recorded and sealed ones. Seals and proofs are not timed.
type Comparison struct {
	Backlog int `json:"backlog"` // deliveries queued behind the dead destination
	// BacklogLeft is how many of them were still queued at the end. All, unless the server gave some up.
	BacklogLeft int `json:"backlog_left"`
	Footprint
	Lost       int64 `json:"lost"`       // of the healthy destination, both times together
	Duplicated int64 `json:"duplicated"` // the same
	// Alone and WithDead are the two measurements in full.
	Alone    Result `json:"alone"`
	WithDead Result `json:"with_dead"`
}

// compare measures cfg's load, has the server queue backlog deliveries, and measures again in
// the same way.
func compare(ctx context.Context, cfg Config, sink *Sink, server Server, backlog int) (Comparison, error) {
	err := cfg.Validate()
	if backlog < 1 || backlog > MaxBacklog {
		err = errors.Join(err, fmt.Errorf("backlog: %d is not in 1 to %d deliveries", backlog, MaxBacklog))
	}
	if err != nil {
		return Comparison{}, err
	}
	cfg = cfg.withDefaults()
	defer sink.ledger.Store(nil)
	c := Comparison{Backlog: backlog}

	if c.Alone, err = settleAndMeasure(ctx, cfg, sink, server); err != nil {
		return c, fmt.Errorf("without a backlog: %w", err)
	}
	if err := server.Queue(ctx, backlog); err != nil {
		return c, fmt.Errorf("queue a backlog: %w", err)
	}
	c.WithDead, err = settleAndMeasure(ctx, cfg, sink, server)
	c.Lost = c.Alone.Lost + c.WithDead.Lost
	c.Duplicated = c.Alone.Duplicated + c.WithDead.Duplicated
	if err != nil {
		return c, fmt.Errorf("with a backlog: %w", err)
	}
	if c.BacklogLeft, err = server.Queued(ctx); err != nil {
		return c, fmt.Errorf("count the backlog: %w", err)
	}
	c.Footprint, err = measureFootprint(ctx, server)
	return c, err
}

// settleAndMeasure runs cfg's load, with its warm-up, on a server that has nothing left to do of what was before.
func settleAndMeasure(ctx context.Context, cfg Config, sink *Sink, server Server) (Result, error) {
	if err := server.Settle(ctx); err != nil {
		return Result{}, fmt.Errorf("settle the database: %w", err)
	}
	warm, err := warmUp(ctx, cfg, sink, server)
	if err != nil {
		return Result{}, err
	}
	p, err := runPhase(ctx, cfg, stageLoad, cfg.Duration, sink, server)
	return newResult(cfg, warm, p), err
}

// Err says why the run does not count: one of its measurements does not, or the backlog was
// not there to the end.
func (c Comparison) Err() error {
	var errs []error
	if err := c.Alone.Err(); err != nil {
		errs = append(errs, fmt.Errorf("without a backlog: %w", err))
	}
	if err := c.WithDead.Err(); err != nil {
		errs = append(errs, fmt.Errorf("with a backlog: %w", err))
	}
	if c.BacklogLeft < c.Backlog {
		errs = append(errs, fmt.Errorf("only %d of %d deliveries stayed queued behind the dead destination", c.BacklogLeft, c.Backlog))
	}
	return errors.Join(errs...)
}

// writeTable prints both measurements and a last line with what was to be shown.
func (c Comparison) writeTable(w io.Writer, shown string) error {
	if err := c.Alone.writeLoad(w); err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "healthy destination\tdelivered\tper second\tp50 ms\tp99 ms\tunsent\t\n")
	for _, row := range []struct {
		name string
		r    Result
	}{{"alone", c.Alone}, {"beside a dead one", c.WithDead}} {
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.2f\t%.2f\t%d\t\n", row.name, row.r.Delivered, row.r.DeliveredPerSecond, row.r.E2EP50, row.r.E2EP99, row.r.Unsent)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s\nqueued behind the dead destination %d, at the end %d; lost %d, duplicated %d\n%s\nother answers: %s, then %s; connection errors: %d, then %d\n",
		shown, c.Backlog, c.BacklogLeft, c.Lost, c.Duplicated, c.Footprint,
		c.Alone.rejections(), c.WithDead.rejections(), c.Alone.ConnectionErrors, c.WithDead.ConnectionErrors)
	return err
}
