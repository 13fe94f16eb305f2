package server

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/store"
)

// lockQuota says what a tenant may have and has. That stays true until the end of the transaction: creations of one tenant
// take turns.
func (a *api) lockQuota(ctx context.Context, tx pgx.Tx, tenantID uuid.UUID) (store.TenantQuotaRow, error) {
	if err := a.DB.LockTenantQuota(ctx, tx, tenantID); err != nil {
		return store.TenantQuotaRow{}, fmt.Errorf("lock quota: %w", err)
	}
	quota, err := a.DB.TenantQuota(ctx, tx, tenantID)
	if err != nil {
		return quota, fmt.Errorf("read quota: %w", err)
	}
	return quota, nil
}
