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
	maxExpiredKeys  = 10_000
	maxThinnedHeads = 10_000
	// keepHourlyHeads is for how long one tree head of each hour is kept; later ones are thinned to one of each day.
	keepHourlyHeads = 30 * 24 * time.Hour
	// What a tenant used is kept for as many days as GetUsage tells.
	usageDays = 400
)

// maintenance makes partitions ahead of need, removes expired deduplication keys and old usage, and thins out old tree
// heads.
type maintenance struct {
	db        *store.DB
	keepHeads time.Duration
	log       *slog.Logger
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
	if err := m.removeKeys(ctx); err != nil {
		return err
	}
	if _, err := m.db.DeleteOldUsage(ctx, m.db.Engine(), usageDays); err != nil {
		return fmt.Errorf("remove old usage: %w", err)
	}
	return m.thinHeads(ctx)
}

func (m *maintenance) removeKeys(ctx context.Context) error {
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

// thinHeads removes heads that the policy does not keep. Nothing needs them: a proof package carries its own, and proofs
// between any two sizes come from tiles.
func (m *maintenance) thinHeads(ctx context.Context) error {
	for {
		removed, err := m.db.ThinTreeHeads(ctx, m.db.Engine(), store.ThinTreeHeadsParams{
			LogID: logID, KeepAllSeconds: m.keepHeads.Seconds(), KeepHourlySeconds: keepHourlyHeads.Seconds(), MaxHeads: maxThinnedHeads,
		})
		if err != nil {
			return fmt.Errorf("thin tree heads: %w", err)
		}
		if removed > 0 {
			m.log.Debug("thinned tree heads", "removed", removed)
		}
		if removed < maxThinnedHeads {
			return nil
		}
	}
}
