package bench

import (
	"context"
	"fmt"
	"io"
)

// NoisyResult says what a dead neighbour does to a healthy destination's latency, from when a
// webhook was due to its whole body at the sink.
type NoisyResult struct {
	HealthyP99         float64 `json:"healthy_p99_ms"`
	HealthyP99WithDead float64 `json:"healthy_p99_with_dead_ms"`
	// Ratio of the two: 1 when the neighbour is not noticed.
	Ratio              float64 `json:"ratio"`
	HealthyP50         float64 `json:"healthy_p50_ms"`
	HealthyP50WithDead float64 `json:"healthy_p50_with_dead_ms"`
	Comparison
}

// RunNoisy measures latency without and with backlog deliveries behind a dead destination. A
// latency means something below saturation only, so cfg.Rate should be set. Errors are as
// those of Run.
func RunNoisy(ctx context.Context, cfg Config, sink *Sink, server Server, backlog int) (NoisyResult, error) {
	c, err := compare(ctx, cfg, sink, server, backlog)
	return NoisyResult{
		HealthyP99: c.Alone.E2EP99, HealthyP99WithDead: c.WithDead.E2EP99,
		Ratio:      ratio(c.WithDead.E2EP99, c.Alone.E2EP99),
		HealthyP50: c.Alone.E2EP50, HealthyP50WithDead: c.WithDead.E2EP50,
		Comparison: c,
	}, err
}

// WriteTable prints the result for people.
func (r NoisyResult) WriteTable(w io.Writer) error {
	return r.writeTable(w, fmt.Sprintf("p99 beside a dead destination: %.2f times that without", r.Ratio))
}
