package reseal

import (
	"context"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

// tables are all that hold secrets at rest.
func tables(db *store.DB, prefix []byte, size int) []table {
	engine, rows := db.Engine(), int32(size)
	return []table{{
		name: "endpoint secrets",
		page: func(ctx context.Context, after uuid.UUID) (page []sealed, err error) {
			found, err := db.EndpointSecretsToReseal(ctx, engine, prefix, after, rows)
			for _, r := range found {
				page = append(page, sealed{r.TenantID, r.SecretID, route.EndpointSecretPurpose, r.Ciphertext})
			}
			return page, err
		},
		write: func(ctx context.Context, b batch) (int64, error) {
			return db.ResealEndpointSecrets(ctx, engine, store.ResealEndpointSecretsParams{TenantIds: b.tenants, SecretIds: b.ids, Befores: b.before, Afters: b.after})
		},
	}, {
		name: "destination secrets",
		page: func(ctx context.Context, after uuid.UUID) (page []sealed, err error) {
			found, err := db.DestinationSecretsToReseal(ctx, engine, prefix, after, rows)
			for _, r := range found {
				page = append(page, sealed{r.TenantID, r.SecretID, route.DestinationSecretPurpose, r.Ciphertext})
			}
			return page, err
		},
		write: func(ctx context.Context, b batch) (int64, error) {
			return db.ResealDestinationSecrets(ctx, engine, store.ResealDestinationSecretsParams{TenantIds: b.tenants, SecretIds: b.ids, Befores: b.before, Afters: b.after})
		},
	}, {
		name: "destination credentials",
		page: func(ctx context.Context, after uuid.UUID) (page []sealed, err error) {
			found, err := db.CredentialsToReseal(ctx, engine, prefix, after, rows)
			for _, r := range found {
				page = append(page, sealed{r.TenantID, r.CredentialID, route.CredentialPurpose(r.Kind), r.Ciphertext})
			}
			return page, err
		},
		write: func(ctx context.Context, b batch) (int64, error) {
			return db.ResealCredentials(ctx, engine, store.ResealCredentialsParams{TenantIds: b.tenants, CredentialIds: b.ids, Befores: b.before, Afters: b.after})
		},
	}}
}
