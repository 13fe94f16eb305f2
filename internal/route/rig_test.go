package route

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	githubSecret      = "It's a Secret to Everybody"
	destinationSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrate(ctx context.Context, url string) error {
	_, err := store.Migrate(ctx, url)
	return err
}

// rig is a table of routes on a database of its own.
type rig struct {
	*Table
	t      *testing.T
	url    string
	tenant uuid.UUID
	logged bytes.Buffer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, url: pgtest.New(t, migrate), tenant: id.New()}
	db, err := store.Open(t.Context(), r.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	keys, err := secret.Open(filepath.Join(t.TempDir(), "keyset"), nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Table = NewTable(db, keys, slog.New(slog.NewTextHandler(&r.logged, nil)))
	r.exec(`insert into tenants (tenant_id, display_name) values ($1, '')`, r.tenant)
	return r
}

func (r *rig) exec(sql string, arguments ...any) {
	r.t.Helper()
	if _, err := r.db.Engine().Exec(r.t.Context(), sql, arguments...); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
}

func (r *rig) refresh() *Snapshot {
	r.t.Helper()
	if err := r.Refresh(r.t.Context()); err != nil {
		r.t.Fatalf("refresh: %v", err)
	}
	return r.Snapshot()
}

// endpoint makes one, with a GitHub secret unless verification says "none".
func (r *rig) endpoint(verification, deduplication, eventType string) uuid.UUID {
	r.t.Helper()
	endpoint := id.New()
	r.exec(`insert into endpoints (tenant_id, endpoint_id, display_name, verification, payload_format, max_body_bytes,
		deduplication, event_type_source) values ($1, $2, '', $3, 'json', 4096, $4, $5)`,
		r.tenant, endpoint, verification, deduplication, eventType)
	return endpoint
}

func (r *rig) endpointSecret(endpoint uuid.UUID, value string) uuid.UUID {
	r.t.Helper()
	secretID := id.New()
	r.exec(`insert into endpoint_secrets (tenant_id, endpoint_id, secret_id, ciphertext) values ($1, $2, $3, $4)`,
		r.tenant, endpoint, secretID, r.seal(secretID, EndpointSecretPurpose, value))
	return secretID
}

// destination makes one with a secret.
func (r *rig) destination(endpoint uuid.UUID, filter, retryPolicy string) uuid.UUID {
	r.t.Helper()
	destination := id.New()
	r.exec(`insert into destinations (tenant_id, destination_id, endpoint_id, display_name, url, filter, signing, retry_policy,
		headers, forwarded_headers, connect_timeout_ms, timeout_ms, max_in_flight)
		values ($1, $2, $3, '', 'https://example.com/in', $4, '{}', $5, '[{"name":"x-team","value":"a"},{"name":"X-Team","value":"b"}]',
		'{x-request-id,"*"}', 1500, 2500, 7)`, r.tenant, destination, endpoint, filter, retryPolicy)
	r.destinationSecret(destination, destinationSecret)
	return destination
}

func (r *rig) destinationSecret(destination uuid.UUID, value string) uuid.UUID {
	r.t.Helper()
	secretID := id.New()
	r.exec(`insert into destination_secrets (tenant_id, destination_id, secret_id, ciphertext) values ($1, $2, $3, $4)`,
		r.tenant, destination, secretID, r.seal(secretID, DestinationSecretPurpose, value))
	return secretID
}

func (r *rig) seal(secretID uuid.UUID, purpose, value string) []byte {
	r.t.Helper()
	ciphertext, err := r.keys.Seal(secret.New([]byte(value)), secret.AssociatedData(r.tenant, secretID, purpose))
	if err != nil {
		r.t.Fatal(err)
	}
	return ciphertext
}
