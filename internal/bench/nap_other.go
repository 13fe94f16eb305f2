//go:build !linux

package bench

import (
	"context"
	"time"
)

// napper sleeps with the resolution of Go's timers.
type napper struct{ ctx context.Context }

// newNapper makes a napper whose sleeps end early, with an error, when ctx ends.
func newNapper(ctx context.Context) (*napper, error) { return &napper{ctx}, nil }

func (n *napper) close() {}

// sleep waits for d.
func (n *napper) sleep(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-n.ctx.Done():
		return n.ctx.Err()
	case <-timer.C:
		return nil
	}
}
