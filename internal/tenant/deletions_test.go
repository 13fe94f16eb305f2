package tenant

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

func TestATenantThatCannotBeDeletedHoldsUpNoOther(t *testing.T) {
	url := pgtest.New(t, migrate)
	db, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	owner, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(context.Background())
	exec := func(sql string, arguments ...any) {
		t.Helper()
		if _, err := owner.Exec(t.Context(), sql, arguments...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	stuck, other := id.New(), id.New()
	for age, tenantID := range map[int]any{2: stuck, 1: other} {
		exec("insert into tenants (tenant_id, display_name, state, deleted_at) values ($1, '', 'deleting', now() - make_interval(mins => $2))", tenantID, age)
		exec("insert into erasures (tenant_id, event_id, reason, finished_at) values ($1, '00000000-0000-0000-0000-000000000000', '', now())", tenantID)
		exec("insert into dedup_keys (tenant_id, endpoint_id, key_hash, event_id, expires_at) values ($1, gen_random_uuid(), 'k', gen_random_uuid(), now())", tenantID)
	}
	exec("create function refused() returns trigger language plpgsql as $$ begin raise exception 'damaged'; end $$")
	exec("create trigger refused before delete on dedup_keys for each row when (old.tenant_id = '" + stuck.String() + "') execute function refused()")
	if err := NewDeletions(db, slog.New(slog.DiscardHandler)).look(t.Context()); err == nil || !strings.Contains(err.Error(), id.Tenant.Text(stuck)) {
		t.Errorf("%v: want an error that names the tenant", err)
	}
	var erased bool
	if err := owner.QueryRow(t.Context(), "select erased_at is not null from tenants where tenant_id = $1", other).Scan(&erased); err != nil || !erased {
		t.Errorf("the other tenant is not deleted: %v", err)
	}
}
