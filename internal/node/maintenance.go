package node

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	maintenanceInterval = time.Minute
	partitionDaysAhead  = 7
	// Expired keys go in steps that hold no lock for long.
	maxExpiredKeys = 10_000
)

// maintenance makes partitions ahead of need and removes expired deduplication keys.
type maintenance struct {
	db  *store.DB
	log *slog.Logger
}

// Run tidies up at once, and then once a minute until ctx ends.
func (m *maintenance) Run(ctx context.Context) error {
	ticker := time.NewTicker(maintenanceInterval)
	defer ticker.Stop()
	for {
		if err := m.tidy(ctx); err != nil && ctx.Err() == nil {
			m.log.Warn("maintenance failed, trying again in a minute", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (m *maintenance) tidy(ctx context.Context) error {
	fault.Pass(fault.NodeMaintenance)
	made, err := m.db.MakePartitions(ctx, m.db.Engine(), partitionDaysAhead)
	if err != nil {
		return fmt.Errorf("make partitions: %w", err)
	}
	if made > 0 {
		m.log.Info("made partitions", "partitions", made)
	}
	for {
		removed, err := m.db.DeleteExpiredDedupKeys(ctx, m.db.Engine(), maxExpiredKeys)
		if err != nil {
			return fmt.Errorf("remove expired deduplication keys: %w", err)
		}
		if removed < maxExpiredKeys {
			return nil
		}
	}
}
