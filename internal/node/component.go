package node

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/thejerf/suture/v4"

	"github.com/kapsel-dev/kapsel/internal/telemetry"
	"github.com/kapsel-dev/kapsel/internal/tlog"
)

const (
	// A component that fails soon after its start rests before the next one, twice as long each time, less what it ran: one
	// that fails now and then is started again at once. maxRest is well below what sources wait for an answer, and what other
	// nodes wait for a heartbeat.
	minRest = 100 * time.Millisecond
	maxRest = 2 * time.Second
	// componentStopTimeout is longer than any component takes to end: the sealer's last seal is bounded by 10 s.
	componentStopTimeout = 15 * time.Second
)

// newSupervisor makes the supervisor of a node: it catches the panics of components and starts them again, each by itself.
// It never rests of its own accord (FailureThreshold): its rest would be all components', and one that always fails must
// not hold up the start of another. Components rest by themselves instead.
func newSupervisor(log *slog.Logger, failures *telemetry.Counter) *suture.Supervisor {
	return suture.New("node", suture.Spec{
		FailureThreshold: math.Inf(1),
		Timeout:          componentStopTimeout,
		EventHook: func(event suture.Event) {
			switch e := event.(type) {
			case suture.EventServicePanic:
				failures.With("component", e.ServiceName, "cause", "panic").Add(1)
				log.Error("component panicked, it is started again", "component", e.ServiceName, "panic", e.PanicMsg, "stack", e.Stacktrace)
			case suture.EventServiceTerminate:
				failures.With("component", e.ServiceName, "cause", "error").Add(1)
				log.Error("component failed, it is started again", "component", e.ServiceName, "error", e.Err)
			case suture.EventStopTimeout:
				log.Error("component does not end", "component", e.ServiceName)
			}
		},
	})
}

// component is a part of the node that the supervisor runs, and starts again when it fails.
type component struct {
	name   string
	run    func(context.Context) error
	log    *slog.Logger
	ended  *telemetry.Count // it refused to go on
	rest   time.Duration    // before the next start
	starts atomic.Int64
}

func (c *component) String() string { return c.name }

// Serve runs the component once. It returns suture.ErrDoNotRestart when it has finished, or refused to go on.
func (c *component) Serve(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(float64(c.rest) * (1 - rand.Float64()/2))): // not all nodes at once
	}
	c.starts.Add(1)
	started := time.Now()
	defer func() { c.rest = nextRest(c.rest, time.Since(started)) }() // after a panic too
	err := c.run(ctx)
	switch {
	case err == nil:
		return suture.ErrDoNotRestart
	case errors.Is(err, tlog.ErrRefused):
		// Nothing that a start does can change the reason: this one is out. Others find out by themselves.
		c.ended.Add(1)
		c.log.Error("component has ended, an operator must look: see docs/operations.md", "component", c.name, "error", err)
		return suture.ErrDoNotRestart
	default:
		return err
	}
}

// nextRest is how long a component rests that rested and then ran for so long.
func nextRest(rested, ran time.Duration) time.Duration {
	return min(max(0, 2*max(rested, minRest/2)-ran), maxRest)
}
