package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// At 8,000 webhooks a second, 16 MiB segments are filled at about this rate.
	logSegmentsPerSecond = 3
	maxLogSegments       = 128
)

// benchSettings let the segments stay when a checkpoint has no more need of them.
var benchSettings = map[string]string{"min_wal_size": "2GB"}

// recycleLog leaves the database with write-ahead log to use again for a run of that length, as one has that is some hours
// old. A new one makes each segment, fills it with zeros and syncs it while a commit waits: twice a second under load.
func recycleLog(ctx context.Context, databaseURL string, run time.Duration) error {
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		return fmt.Errorf("make write-ahead log: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for range min(maxLogSegments, 1+logSegmentsPerSecond*int(run.Seconds())) {
		// A switch has an effect only if something was written since the one before.
		if _, err := conn.Exec(ctx, "select pg_logical_emit_message(false, 'kapsel', ''); select pg_switch_wal()"); err != nil {
			return fmt.Errorf("make write-ahead log: %w", err)
		}
	}
	if _, err := conn.Exec(ctx, "checkpoint"); err != nil {
		return fmt.Errorf("recycle write-ahead log: %w", err)
	}
	return nil
}
