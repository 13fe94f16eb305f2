package node

import (
	"context"
	"log/slog"
	"time"

	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/tlog"
)

// headPollInterval bounds how long another node's head can stay unseen when its notice is lost.
const headPollInterval = 5 * time.Second

// headFollower brings the heads that other nodes publish into this node's hub.
type headFollower struct {
	heads *tlog.Heads
	log   *slog.Logger
	poke  chan struct{}
}

func newHeadFollower(heads *tlog.Heads, log *slog.Logger) *headFollower {
	return &headFollower{heads: heads, log: log, poke: make(chan struct{}, 1)}
}

// Poke says that there may be a new head. It never blocks.
func (f *headFollower) Poke(string) {
	select {
	case f.poke <- struct{}{}:
	default:
	}
}

// Run follows until ctx ends.
func (f *headFollower) Run(ctx context.Context) error {
	ticker := time.NewTicker(headPollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.poke:
		case <-ticker.C:
		}
		fault.Pass(fault.NodeHeads)
		if err := f.heads.Refresh(ctx); err != nil && ctx.Err() == nil {
			f.log.Warn("tree head not read, trying again", "error", err)
		}
	}
}
