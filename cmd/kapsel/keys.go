package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/protocli"
	"github.com/kapsel-dev/kapsel/internal/tenant"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	keysTimeout = 30 * time.Second
	scopePrefix = "API_KEY_SCOPE_"
)

// tenantScopes are all that a key of a tenant may have.
var tenantScopes = []string{"ingest", "read", "manage", "admin"}

func newKeys() *cobra.Command {
	cmd := &cobra.Command{Use: "keys", Short: "Make, list and revoke API keys, and change the key of the log", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError(errors.New("say what to do: kapsel keys create, list, revoke, new-log-key or rotate-log"))
		},
	}
	cmd.AddCommand(newKeysCreate(), newKeysList(), newKeysRevoke(), newKeysNewLogKey(), newKeysRotateLog(), newKeysRestartLog())
	return cmd
}

// keyFlags describe a new key.
type keyFlags struct {
	databaseURL, tenant, tenantName, name string
	scopes                                []string
	expires                               time.Duration
	operator                              bool
}

func newKeysCreate() *cobra.Command {
	var flags keyFlags
	var server clientFlags
	var output outputFlag
	cmd := &cobra.Command{
		Use: "create", Short: "Make an API key, over the API or on the database",
		Long: `Makes an API key and prints it once: it cannot be shown again.

With --database-url it is made on the database, which needs no key: so the first ones are made. --operator makes a key of
the operator, who manages tenants; otherwise it is a key of --tenant, or of a new tenant. The schema must be there: see
kapsel migrate.

Without, the server of --url makes it, for the tenant of --api-key, or for --tenant if that is a key of the operator.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			printer, err := output.printer(cmd)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), keysTimeout)
			defer cancel()
			create := flags.onDatabase
			if flags.databaseURL == "" {
				create = func(ctx context.Context) (*kapselv1.CreateApiKeyResponse, error) { return flags.onServer(ctx, server) }
			}
			response, err := create(ctx)
			if err != nil {
				return err
			}
			if !flags.operator {
				fmt.Fprintf(cmd.ErrOrStderr(), "tenant %s\n", response.ApiKey.TenantId)
			}
			return output.print(printer, response, response.Secret+"\n")
		},
	}
	cmd.Flags().StringVar(&flags.databaseURL, "database-url", "", "the database of the service, as a connection URI")
	cmd.Flags().BoolVar(&flags.operator, "operator", false, "make a key of the operator")
	cmd.Flags().StringVar(&flags.tenant, "tenant", "", "id of an existing tenant, tnt_…")
	cmd.Flags().StringVar(&flags.tenantName, "tenant-name", "First tenant", "name of the new tenant")
	cmd.Flags().StringVar(&flags.name, "name", "", "name of the key, for people")
	cmd.Flags().StringSliceVar(&flags.scopes, "scope", nil, "what the key may do: ingest, read, manage, admin (default all)")
	cmd.Flags().DurationVar(&flags.expires, "expires", 0, "for how long the key is valid, such as 2160h; 0: for ever")
	output.add(cmd)
	server.add(cmd.Flags())
	return cmd
}

// check reads the tenant and completes the scopes.
func (f *keyFlags) check() (tenantID uuid.UUID, err error) {
	if f.tenant != "" {
		if tenantID, err = id.Tenant.Parse(f.tenant); err != nil {
			return uuid.Nil, usageError(fmt.Errorf("--tenant: %w", err))
		}
	}
	if f.expires < 0 {
		return uuid.Nil, usageError(errors.New("--expires is negative: say for how long the key is valid"))
	}
	if f.operator {
		if f.tenant != "" || len(f.scopes) > 0 {
			return uuid.Nil, usageError(errors.New("--operator contradicts --tenant and --scope: a key of the operator manages tenants, and nothing that is a tenant's"))
		}
		f.scopes = []string{string(tenant.Operator)}
		return tenant.OperatorID, nil
	}
	for _, scope := range f.scopes {
		if !slices.Contains(tenantScopes, scope) {
			return uuid.Nil, usageError(fmt.Errorf("--scope: there is no %q: choose of %s", scope, strings.Join(tenantScopes, ", ")))
		}
	}
	if len(f.scopes) == 0 {
		f.scopes = tenantScopes
	}
	return tenantID, nil
}

// onDatabase makes a key there. The answer says no more of it than what a server's would say of its tenant and its name.
func (f *keyFlags) onDatabase(ctx context.Context) (*kapselv1.CreateApiKeyResponse, error) {
	tenantID, err := f.check()
	if err != nil {
		return nil, err
	}
	db, err := store.Open(ctx, f.databaseURL)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if tenantID == uuid.Nil {
		if tenantID, err = createTenant(ctx, db, f.tenantName); err != nil {
			return nil, err
		}
	}
	params := store.CreateAPIKeyParams{TenantID: tenantID, DisplayName: f.name, Scopes: f.scopes}
	if f.expires > 0 {
		at := time.Now().Add(f.expires)
		params.ExpiresAt = &at
	}
	key, err := createKey(ctx, db, params)
	if err != nil {
		return nil, err
	}
	return &kapselv1.CreateApiKeyResponse{Secret: key, ApiKey: &kapselv1.ApiKey{TenantId: id.Tenant.Text(tenantID), DisplayName: f.name}}, nil
}

func (f *keyFlags) onServer(ctx context.Context, server clientFlags) (*kapselv1.CreateApiKeyResponse, error) {
	if _, err := f.check(); err != nil {
		return nil, err
	}
	d, err := server.demo()
	if err != nil {
		return nil, err
	}
	request := &kapselv1.CreateApiKeyRequest{TenantId: f.tenant, ApiKey: &kapselv1.ApiKey{DisplayName: f.name}}
	for _, scope := range f.scopes {
		request.ApiKey.Scopes = append(request.ApiKey.Scopes, kapselv1.ApiKeyScope(kapselv1.ApiKeyScope_value[scopePrefix+strings.ToUpper(scope)]))
	}
	if f.expires > 0 {
		request.ApiKey.ExpireTime = timestamppb.New(time.Now().Add(f.expires))
	}
	response, err := newClient(d.URL, d.APIKey).tenants.CreateApiKey(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("create API key: %w", err)
	}
	return response, nil
}

func newKeysList() *cobra.Command {
	var server clientFlags
	var tenantText string
	var output outputFlag
	cmd := &cobra.Command{
		Use: "list", Short: "List API keys, the newest first, without their values", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			printer, err := output.printer(cmd)
			if err != nil {
				return err
			}
			d, err := server.demo()
			if err != nil {
				return err
			}
			c := newClient(d.URL, d.APIKey)
			if printer.Format != protocli.Table {
				return listRPC(cmd, c, "TenantService/ListApiKeys", &kapselv1.ListApiKeysRequest{TenantId: tenantText}, 0, printer)
			}
			out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(out, "ID\tKEY\tSCOPES\tSTATE\tLAST USED\tNAME")
			request := &kapselv1.ListApiKeysRequest{TenantId: tenantText, PageSize: 1000}
			for {
				page, err := c.tenants.ListApiKeys(cmd.Context(), request)
				if err != nil {
					return fmt.Errorf("list API keys: %w", err)
				}
				for _, key := range page.ApiKeys {
					var scopes []string
					for _, scope := range key.Scopes {
						scopes = append(scopes, strings.ToLower(strings.TrimPrefix(scope.String(), scopePrefix)))
					}
					used := "never"
					if key.LastUseTime != nil {
						used = key.LastUseTime.AsTime().Format(time.DateTime)
					}
					fmt.Fprintf(out, "%s\t%s…\t%s\t%s\t%s\t%s\n", key.Id, key.Hint, strings.Join(scopes, ","), keyState(key, time.Now()), used, key.DisplayName)
				}
				if request.PageToken = page.NextPageToken; request.PageToken == "" {
					return out.Flush()
				}
			}
		},
	}
	cmd.Flags().StringVar(&tenantText, "tenant", "", "id of a tenant, tnt_…, for a key of the operator (default the key's own)")
	output.add(cmd)
	server.add(cmd.Flags())
	return cmd
}

func keyState(key *kapselv1.ApiKey, now time.Time) string {
	switch {
	case key.RevokeTime != nil:
		return "revoked"
	case key.ExpireTime != nil && !now.Before(key.ExpireTime.AsTime()):
		return "expired"
	case key.ExpireTime != nil:
		return "until " + key.ExpireTime.AsTime().Format(time.DateOnly)
	}
	return "valid"
}

func newKeysRevoke() *cobra.Command {
	var server clientFlags
	var output outputFlag
	cmd := &cobra.Command{
		Use: "revoke KEY_ID", Short: "Revoke an API key, on every node within two seconds", Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			printer, err := output.printer(cmd)
			if err != nil {
				return err
			}
			d, err := server.demo()
			if err != nil {
				return err
			}
			response, err := newClient(d.URL, d.APIKey).tenants.RevokeApiKey(cmd.Context(), &kapselv1.RevokeApiKeyRequest{ApiKeyId: args[0]})
			if err != nil {
				return fmt.Errorf("revoke API key: %w", err)
			}
			key := response.ApiKey
			return output.print(printer, response, fmt.Sprintf("%s (%s…) revoked at %s\n", key.Id, key.Hint, key.RevokeTime.AsTime().Format(time.DateTime)))
		},
	}
	output.add(cmd)
	server.add(cmd.Flags())
	return cmd
}

// audit writes down what is done on the database itself, where no API key says by whom.
func audit(ctx context.Context, db *store.DB, tx pgx.Tx, tenantID uuid.UUID, action, resource string) error {
	return db.WriteAuditEntry(ctx, tx, store.WriteAuditEntryParams{
		TenantID: tenantID, EntryID: id.New(), Actor: "operator", Action: action, ResourceID: resource,
		Detail: "by the command line, on the database",
	})
}

func createTenant(ctx context.Context, db *store.DB, name string) (uuid.UUID, error) {
	tenantID := id.New()
	err := pgx.BeginFunc(ctx, db.Engine(), func(tx pgx.Tx) error {
		if err := db.CreateTenant(ctx, tx, tenantID, name); err != nil {
			return err
		}
		return audit(ctx, db, tx, tenantID, "CreateTenant", id.Tenant.Text(tenantID))
	})
	if err != nil {
		return uuid.Nil, fmt.Errorf("create tenant: %w", err)
	}
	return tenantID, nil
}

// createKey makes a key with the name, scopes and expiry of params, and returns its text.
func createKey(ctx context.Context, db *store.DB, params store.CreateAPIKeyParams) (string, error) {
	key := tenant.NewKey()
	params.KeyID, params.Hint, params.SecretHash = id.New(), key.Hint(), key.Hash()
	params.DisplayName = cmp.Or(params.DisplayName, "first key")
	err := pgx.BeginFunc(ctx, db.Engine(), func(tx pgx.Tx) error {
		if params.TenantID == tenant.OperatorID {
			if err := db.EnsureOperatorTenant(ctx, tx); err != nil {
				return err
			}
		}
		switch present, err := db.GetTenant(ctx, tx, params.TenantID); {
		case errors.Is(err, pgx.ErrNoRows):
			return errors.New("there is no such tenant")
		case err != nil:
			return err
		case present.State == "deleting":
			return errors.New("the tenant is being deleted, and the key would never open: create another tenant")
		}
		if err := db.CreateAPIKey(ctx, tx, params); err != nil {
			return err
		}
		return audit(ctx, db, tx, params.TenantID, "CreateApiKey", id.APIKey.Text(params.KeyID))
	})
	if err != nil {
		return "", fmt.Errorf("create API key of %s: %w", id.Tenant.Text(params.TenantID), err)
	}
	return key.Text(), nil
}

// createAPIKey makes a key of all that a tenant may do, and returns its text.
func createAPIKey(ctx context.Context, db *store.DB, tenantID uuid.UUID) (string, error) {
	return createKey(ctx, db, store.CreateAPIKeyParams{TenantID: tenantID, Scopes: tenantScopes})
}

// createTenantWithKey makes a new tenant and returns its key.
func createTenantWithKey(ctx context.Context, db *store.DB, name string) (string, error) {
	tenantID, err := createTenant(ctx, db, name)
	if err != nil {
		return "", err
	}
	return createAPIKey(ctx, db, tenantID)
}
