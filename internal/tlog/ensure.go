package tlog

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/store"
)

// EnsureLog makes the log on first start and adds the key to its keys. A log's origin never changes: an existing log with
// another one is an error. Each node calls it before it makes a Sealer or a Reader.
func EnsureLog(ctx context.Context, db store.DBTX, logID int32, origin string, key *Key) error {
	if err := checkpoint.CheckOrigin(origin); err != nil {
		return err
	}
	queries := store.New()
	if err := queries.EnsureLog(ctx, db, logID, origin); err != nil {
		return fmt.Errorf("make log %d: %w", logID, err)
	}
	row, err := queries.GetLog(ctx, db, logID)
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("origin %q belongs to another log than %d: give this one its own", origin, logID)
	}
	if err != nil {
		return fmt.Errorf("read log %d: %w", logID, err)
	}
	if row.Origin != origin {
		return fmt.Errorf("log %d has origin %q, which cannot change to %q: every published head names it", logID, row.Origin, origin)
	}
	if err := queries.EnsureLogSealer(ctx, db, logID, merkle.EmptyRoot[:]); err != nil {
		return fmt.Errorf("make sealer of log %d: %w", logID, err)
	}
	if err := queries.EnsureLogKey(ctx, db, logID, key.Public()); err != nil {
		return fmt.Errorf("add key of log %d: %w", logID, err)
	}
	return nil
}
