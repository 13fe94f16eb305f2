package store_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/store"
)

// keyedOtherwise are the tables with a tenant_id whose primary key does not begin with it, and why. On a database that is
// sharded by tenant (docs/sizing.md) they are what has to be thought of.
var keyedOtherwise = map[string]string{
	"attempts": "the ledger is the log: its key is a leaf's place in a log that tenants share. Sharded logs give each shard its own",
}

// The schema can be sharded by tenant: each table of tenants has the tenant first in its primary key, or says why not.
func TestKeysOfTenantTablesLeadWithTheTenant(t *testing.T) {
	_, owner := open(t)
	found := names(t, owner, `
		select c.relname::text from pg_class c
		join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
		left join pg_index i on i.indrelid = c.oid and i.indisprimary
		where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
		  and (i.indexrelid is null or i.indkey[0] <> a.attnum)
		order by c.relname`)
	for _, table := range found {
		if keyedOtherwise[table] == "" {
			t.Errorf("the primary key of %s does not begin with tenant_id: let it, or explain the exception", table)
		}
	}
	if len(found) != len(keyedOtherwise) {
		t.Errorf("%d tables are keyed otherwise (%q), and %d exceptions are explained", len(found), found, len(keyedOtherwise))
	}
}

// PostgreSQL's default is to compile what seems expensive. To our sessions everything without an index seems so.
func TestSessionsDoNotCompileStatements(t *testing.T) {
	url := pgtest.New(t, migrate)
	owner, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close(context.Background())
	if _, err := owner.Exec(t.Context(), "do $$ begin execute format('alter database %I set jit = on', current_database()); end $$"); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var jit string
	if err := db.Engine().QueryRow(t.Context(), "show jit").Scan(&jit); err != nil || jit != "off" {
		t.Errorf("jit is %q (%v): want off", jit, err)
	}
}
