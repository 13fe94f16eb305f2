package bench

import (
	"context"
	"fmt"
	"io"
)

// BacklogResult says what a full queue does to a healthy destination's throughput.
type BacklogResult struct {
	DeliveredPerSecondEmpty   float64 `json:"delivered_per_s_empty"`
	DeliveredPerSecondBacklog float64 `json:"delivered_per_s_with_backlog"`
	// Ratio of the second to the first: 1 when the backlog is not noticed.
	Ratio float64 `json:"ratio"`
	Comparison
}

// RunBacklog measures throughput without and with backlog deliveries behind a dead
// destination. Errors are as those of Run.
func RunBacklog(ctx context.Context, cfg Config, sink *Sink, server Server, backlog int) (BacklogResult, error) {
	c, err := compare(ctx, cfg, sink, server, backlog)
	empty, full := c.Alone.DeliveredPerSecond, c.WithDead.DeliveredPerSecond
	return BacklogResult{DeliveredPerSecondEmpty: empty, DeliveredPerSecondBacklog: full, Ratio: ratio(full, empty), Comparison: c}, err
}

// WriteTable prints the result for people.
func (r BacklogResult) WriteTable(w io.Writer) error {
	return r.writeTable(w, fmt.Sprintf("throughput beside a dead destination: %.2f times that without", r.Ratio))
}
