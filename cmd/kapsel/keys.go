package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/tenant"
	"github.com/kapsel-dev/kapsel/store"
)

const keysTimeout = 30 * time.Second

func newKeys() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "Make API keys, with access to the database", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError(errors.New("say what to do: kapsel keys create"))
		},
	}
	cmd.AddCommand(newKeysCreate())
	return cmd
}

func newKeysCreate() *cobra.Command {
	var url, tenantText, tenantName string
	cmd := &cobra.Command{
		Use: "create", Short: "Make an API key, and a tenant for it unless --tenant names one",
		Long: `Makes an API key with all that a tenant may do, and prints it once: it cannot be shown again. With
--tenant the key is that tenant's, otherwise a new tenant is made. The schema must be there: see kapsel migrate.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if url == "" {
				return usageError(errors.New("database URL is missing: set --database-url or KAPSEL_DATABASE_URL"))
			}
			tenantID := uuid.Nil
			if tenantText != "" {
				var err error
				if tenantID, err = id.Tenant.Parse(tenantText); err != nil {
					return usageError(fmt.Errorf("--tenant: %w", err))
				}
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), keysTimeout)
			defer cancel()
			db, err := store.Open(ctx, url)
			if err != nil {
				return err
			}
			defer db.Close()
			if tenantID == uuid.Nil {
				if tenantID, err = createTenant(ctx, db, tenantName); err != nil {
					return err
				}
			}
			key, err := createAPIKey(ctx, db, tenantID)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "tenant %s\n", id.Tenant.Text(tenantID))
			_, err = fmt.Fprintln(cmd.OutOrStdout(), key)
			return err
		},
	}
	cmd.Flags().StringVar(&url, "database-url", "", "the database of the service, as a connection URI")
	cmd.Flags().StringVar(&tenantText, "tenant", "", "id of an existing tenant, tnt_…")
	cmd.Flags().StringVar(&tenantName, "tenant-name", "First tenant", "name of the new tenant")
	return cmd
}

func createTenant(ctx context.Context, db *store.DB, name string) (uuid.UUID, error) {
	tenantID := id.New()
	if err := db.CreateTenant(ctx, db.Engine(), tenantID, name); err != nil {
		return uuid.Nil, fmt.Errorf("create tenant: %w", err)
	}
	return tenantID, nil
}

// createAPIKey makes a key of all that a tenant may do, and returns its text.
func createAPIKey(ctx context.Context, db *store.DB, tenantID uuid.UUID) (string, error) {
	key := tenant.NewKey()
	err := db.CreateAPIKey(ctx, db.Engine(), store.CreateAPIKeyParams{
		TenantID: tenantID, KeyID: id.New(), DisplayName: "first key", Hint: key.Hint(), SecretHash: key.Hash(),
		Scopes: []string{"ingest", "read", "manage", "admin"},
	})
	if err != nil {
		return "", fmt.Errorf("create API key of %s: %w", id.Tenant.Text(tenantID), err)
	}
	return key.Text(), nil
}

// createTenantWithKey makes a new tenant and returns its key.
func createTenantWithKey(ctx context.Context, db *store.DB, name string) (string, error) {
	tenantID, err := createTenant(ctx, db, name)
	if err != nil {
		return "", err
	}
	return createAPIKey(ctx, db, tenantID)
}
