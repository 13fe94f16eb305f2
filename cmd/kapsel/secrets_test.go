package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/store"
)

// secretsRun runs `kapsel secrets …` and returns what it printed and how it failed.
func secretsRun(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := newRoot()
	root.SetOut(&out)
	root.SetArgs(append([]string{"secrets"}, args...))
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

func TestSecretsAreRotatedAndPruned(t *testing.T) {
	t.Setenv(keysetVariable, "")
	url := pgtest.New(t, func(ctx context.Context, url string) error {
		_, err := store.Migrate(ctx, url)
		return err
	})
	dir := t.TempDir()
	t.Setenv("KAPSEL_DATABASE_URL", url)
	t.Setenv("KAPSEL_STATE_DIR", dir)
	if _, err := secretsRun(t, "status"); err == nil {
		t.Error("a keyset that is not there was made up")
	}
	path := filepath.Join(dir, keysetFile)
	keys, err := secret.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tenantID, endpointID, secretID := id.New(), id.New(), id.New()
	sealed, err := keys.Seal(secret.New([]byte("whsec_x")), secret.AssociatedData(tenantID, secretID, route.EndpointSecretPurpose))
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []struct {
		sql       string
		arguments []any
	}{
		{`insert into tenants (tenant_id, display_name) values ($1, '')`, []any{tenantID}},
		{`insert into endpoints (tenant_id, endpoint_id, display_name, verification, payload_format, max_body_bytes, deduplication, event_type_source)
			values ($1, $2, '', '{}', 'any', 1048576, '{}', '{}')`, []any{tenantID, endpointID}},
		{`insert into endpoint_secrets (tenant_id, endpoint_id, secret_id, ciphertext) values ($1, $2, $3, $4)`, []any{tenantID, endpointID, secretID, sealed}},
	} {
		if _, err := conn.Exec(t.Context(), statement.sql, statement.arguments...); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want string, args ...string) {
		t.Helper()
		got, err := secretsRun(t, args...)
		if err != nil || !strings.Contains(got, want) {
			t.Errorf("secrets %v: %q, %v: want %q", args, got, err, want)
		}
	}
	expect("opens and seals  1", "status")
	expect("is added", "rotate", "--prepare")

	// Nodes that have the keyset in the environment have both keys now, before anything is sealed under the new one.
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ofNodes := base64.StdEncoding.EncodeToString(text)
	t.Setenv(keysetVariable, ofNodes)
	if got, err := secretsRun(t, "rotate"); err == nil || !strings.Contains(err.Error(), "nothing is rotated") {
		t.Errorf("rotate with a keyset that it cannot change: %q, %v", got, err)
	}
	t.Setenv(keysetVariable, "")
	expect("1 secrets are encrypted under", "rotate")
	if err := conn.QueryRow(t.Context(), "select ciphertext from endpoint_secrets").Scan(&sealed); err != nil {
		t.Fatal(err)
	}
	if keys, err = secret.Decode(ofNodes, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := keys.Unseal(sealed, secret.AssociatedData(tenantID, secretID, route.EndpointSecretPurpose)); err != nil {
		t.Errorf("nodes that have both keys cannot read what was rotated: %v", err)
	}
	expect("opens            0", "status")
	expect("1 keys removed", "prune")
	expect("opens and seals  1", "status")
	other := t.TempDir()
	if _, err := secret.Open(filepath.Join(other, keysetFile), nil); err != nil {
		t.Fatal(err)
	}
	if got, err := secretsRun(t, "status", "--state-dir", other); err == nil || !strings.Contains(got, "not in this keyset") {
		t.Errorf("with another keyset: %q, %v", got, err)
	}
}

// Encryption by a KMS is tested in packages secret and signer; this is what the commands say before they get there.
func TestSecretsAreNotWrappedByHalf(t *testing.T) {
	t.Setenv(keysetVariable, "")
	dir := t.TempDir()
	if code, text := runCaptured(t, "state", "init", "--state-dir", dir); code != 0 {
		t.Fatalf("state init: exit code %d, %s", code, text)
	}
	before := readFile(t, filepath.Join(dir, keysetFile))
	for want, args := range map[string][]string{
		"--secrets-kms":  {"secrets", "wrap", "--state-dir", dir},
		"--state-dir":    {"secrets", "wrap", "--secrets-kms", "awskms:///alias/x"},
		"awskms or gcpk": {"secrets", "wrap", "--state-dir", dir, "--secrets-kms", "vault:x"},
		"begins with":    {"state", "init", "--state-dir", dir, "--secrets-kms", "vault:x"},
	} {
		if code, text := runCaptured(t, args...); code == 0 || !strings.Contains(text, want) {
			t.Errorf("%v: exit code %d, %q, want %q", args, code, text, want)
		}
	}
	t.Setenv(keysetVariable, "x")
	if code, text := runCaptured(t, "secrets", "wrap", "--state-dir", dir, "--secrets-kms", "awskms:///alias/x"); code == 0 || !strings.Contains(text, keysetVariable) {
		t.Errorf("a keyset of the environment: exit code %d, %q", code, text)
	}
	if readFile(t, filepath.Join(dir, keysetFile)) != before {
		t.Error("the keyset was changed")
	}
}
