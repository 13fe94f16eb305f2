package tenant

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	deletionInterval = 2 * time.Second
	// deletionPage of rows goes in one statement, so that none holds locks for long.
	deletionPage    = 500
	deletionTimeout = 30 * time.Second
)

// Deletions carries out what DeleteTenant began: first secrets, then, once ledger.Eraser has erased payloads and leaf bytes,
// endpoints, destinations and keys. Each step is a statement of its own that removes a page of rows and depends on nothing
// but what is there, so any node can go on where another stopped. Hashes and the audit log stay.
type Deletions struct {
	db  *store.DB
	log *slog.Logger
}

// NewDeletions makes the Deletions of a node.
func NewDeletions(db *store.DB, log *slog.Logger) *Deletions { return &Deletions{db: db, log: log} }

// Run looks for tenants to delete every few seconds until ctx ends.
func (d *Deletions) Run(ctx context.Context) error {
	ticker := time.NewTicker(deletionInterval)
	defer ticker.Stop()
	for {
		if err := d.look(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("deletion of a tenant interrupted, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// look goes on with each tenant as far as it goes now.
func (d *Deletions) look(ctx context.Context) error {
	tenants, err := d.db.TenantsToDelete(ctx, d.db.Engine())
	if err != nil {
		return fmt.Errorf("look for tenants to delete: %w", err)
	}
	var errs []error // one tenant holds up no other
	for _, row := range tenants {
		if err := d.delete(ctx, row.TenantID, row.Erased); err != nil {
			errs = append(errs, fmt.Errorf("delete %s: %w", id.Tenant.Text(row.TenantID), err))
		}
	}
	return errors.Join(errs...)
}

func (d *Deletions) delete(ctx context.Context, tenantID uuid.UUID, erased bool) error {
	if err := d.pages(ctx, tenantID, d.db.DeleteTenantSecrets); err != nil {
		return fmt.Errorf("remove secrets: %w", err)
	}
	if !erased {
		return nil
	}
	if err := d.pages(ctx, tenantID, d.db.DeleteTenantConfiguration); err != nil {
		return fmt.Errorf("remove configuration: %w", err)
	}
	finished, err := d.db.FinishTenantDeletion(ctx, d.db.Engine(), id.New(), id.Tenant.Text(tenantID), tenantID)
	if err != nil {
		return fmt.Errorf("finish: %w", err)
	}
	if finished > 0 {
		d.log.Info("tenant deleted", "tenant_id", id.Tenant.Text(tenantID))
	}
	return nil
}

// pages calls remove until nothing is left.
func (d *Deletions) pages(ctx context.Context, tenantID uuid.UUID, remove func(context.Context, store.DBTX, uuid.UUID, int32) (int32, error)) error {
	for {
		stepCtx, cancel := context.WithTimeout(ctx, deletionTimeout)
		removed, err := remove(stepCtx, d.db.Engine(), tenantID, deletionPage)
		cancel()
		if err != nil || removed == 0 {
			return err
		}
	}
}
