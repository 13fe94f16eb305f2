package server

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

// changeRow runs f on a row of the caller's that lock finds and holds, and has what f did in force on this node when it
// returns. missing is the answer when there is none.
func changeRow[Row any](ctx context.Context, a *api, kind id.Kind, text string, missing *refusal,
	lock func(ctx context.Context, db store.DBTX, tenantID, rowID uuid.UUID) (Row, error), f func(tx pgx.Tx, present Row) error) error {
	tenantID := caller(ctx).TenantID
	rowID, err := kind.Parse(text)
	if err != nil {
		return missing
	}
	err = a.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		present, err := lock(ctx, tx, tenantID, rowID)
		if errors.Is(err, pgx.ErrNoRows) {
			return missing
		}
		if err != nil {
			return err
		}
		return f(tx, present)
	})
	if err != nil {
		return err
	}
	a.applyRoutes(ctx)
	return nil
}
