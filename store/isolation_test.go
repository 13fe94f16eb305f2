package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrate(ctx context.Context, url string) error {
	_, err := store.Migrate(ctx, url)
	return err
}

// shared are the tables without a tenant that a tenant's request may read: they hold hashes, heads and public keys.
var shared = []string{"cosignatures", "leaf_hashes", "log_key_rotations", "log_keys", "log_sealers", "logs", "tiles", "tree_heads"}

// roles are those that the service works as.
var roles = []string{"kapsel_tenant", "kapsel_engine", "kapsel_operator"}

func open(t *testing.T) (*store.DB, *pgx.Conn) {
	t.Helper()
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
	t.Cleanup(func() { owner.Close(context.Background()) })
	return db, owner
}

func names(t *testing.T, owner *pgx.Conn, sql string, arguments ...any) []string {
	t.Helper()
	rows, err := owner.Query(t.Context(), sql, arguments...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return found
}

func refused(err error, codes ...string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && slices.Contains(codes, pgErr.Code)
}

const permissionDenied = "42501"

// The tables of the schema, partitions left out.
const tables = `select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
	where n.nspname = 'public' and c.relkind in ('r', 'p') and not c.relispartition and c.relname <> 'goose_db_version'`

// A new table must come with its policies, or say here that it is nobody's.
func TestEveryTenantTableForcesRowSecurity(t *testing.T) {
	_, owner := open(t)
	const hasTenant = ` and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped)`
	all := names(t, owner, tables+hasTenant+" order by 1")
	if len(all) < 12 {
		t.Fatalf("only %d tenant tables: %v", len(all), all)
	}
	guarded := names(t, owner, tables+hasTenant+` and c.relrowsecurity and c.relforcerowsecurity
		and (select count(*) from pg_policy p where p.polrelid = c.oid and p.polroles = array['kapsel_tenant'::regrole::oid] and p.polcmd = '*'
			and pg_get_expr(p.polqual, p.polrelid) = '(tenant_id = kapsel_current_tenant())'
			and pg_get_expr(p.polwithcheck, p.polrelid) = '(tenant_id = kapsel_current_tenant())') = 1
		and not exists (select from pg_policy p where p.polrelid = c.oid
			and (0::oid = any(p.polroles) or 'kapsel_tenant'::regrole::oid = any(p.polroles) and p.polname <> 'tenant')) order by 1`)
	if !slices.Equal(all, guarded) {
		t.Errorf("tenant tables: %v\nof which guarded: %v", all, guarded)
	}
	const readable = ` and has_table_privilege('kapsel_tenant', c.oid, 'select, insert, update, delete')`
	if got := names(t, owner, tables+" and not (true"+hasTenant+")"+readable+" order by 1"); !slices.Equal(got, shared) {
		t.Errorf("tables without a tenant that a tenant's request may use: %v, want %v", got, shared)
	}
}

// A policy of a partitioned table does not guard its partitions: nobody may name them.
func TestPartitionsCannotBeReachedDirectly(t *testing.T) {
	_, owner := open(t)
	const partitions = `select c.relname::text from pg_class c where c.relispartition and c.relkind = 'r'`
	if all := names(t, owner, partitions); len(all) < 10 {
		t.Fatalf("only %d partitions: %v", len(all), all)
	}
	for _, role := range roles {
		if open := names(t, owner, partitions+` and has_table_privilege($1, c.oid, 'select, insert, update, delete, truncate, references, trigger')`, role); len(open) > 0 {
			t.Errorf("%s has rights on %v", role, open)
		}
	}
}

func TestRolesCannotEscape(t *testing.T) {
	_, owner := open(t)
	if strong := names(t, owner, `select rolname::text from pg_roles where rolname = any($1)
		and (rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolcanlogin or rolreplication)`, roles); len(strong) > 0 {
		t.Errorf("roles with too many rights: %v", strong)
	}
	if ways := names(t, owner, `select (member::regrole || ' in ' || roleid::regrole)::text from pg_auth_members
		where member::regrole::text = any($1)`, roles); len(ways) > 0 {
		t.Errorf("roles that are members of others: %v", ways)
	}
	for _, role := range roles {
		if creators := names(t, owner, `select 'public' where has_schema_privilege($1, 'public', 'create')`, role); len(creators) > 0 {
			t.Errorf("%s may create objects", role)
		}
	}
}

// fill puts a row of the tenant into a table, whatever its columns are. Checks of foreign keys are off.
func fill(t *testing.T, owner *pgx.Conn, table string, tenant uuid.UUID) {
	t.Helper()
	var columns, values string
	err := owner.QueryRow(t.Context(), `select string_agg(quote_ident(attname), ', '), string_agg(case
			when attname = 'tenant_id' then quote_literal($2::text)
			when attname = 'payload_format' then quote_literal('any')
			when attname = 'kind' and $1 = 'destination_credentials' then quote_literal('tls_key')
			when attname = 'kind' then quote_literal('breaker_opened')
			when attname = 'max_in_flight' then '1'
			else case format_type(atttypid, null)
				when 'uuid' then 'gen_random_uuid()' when 'text' then '''x''' when 'text[]' then '''{}''' when 'uuid[]' then '''{}''' when 'jsonb' then '''{}'''
				when 'date' then 'current_date'
				when 'bytea' then 'sha256(gen_random_uuid()::text::bytea)' when 'boolean' then 'true'
				when 'timestamp with time zone' then 'now()' else '(random() * 900)::int + 1' end end, ', ')
		from pg_attribute where attrelid = $1::text::regclass and attnum > 0 and not attisdropped and attnotnull and not atthasdef`, table, tenant).
		Scan(&columns, &values)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := owner.Exec(t.Context(), fmt.Sprintf("insert into %s (%s) values (%s) on conflict do nothing", pgx.Identifier{table}.Sanitize(), columns, values)); err != nil {
		t.Fatalf("fill %s (a new check needs a value here): %v", table, err)
	}
}

func TestTenantSeesAndWritesOnlyItsOwnRows(t *testing.T) {
	db, owner := open(t)
	mine, theirs := id.New(), id.New()
	if _, err := owner.Exec(t.Context(), "set session_replication_role = replica"); err != nil {
		t.Fatal(err)
	}
	tenantTables := names(t, owner, tables+` and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id')
		and has_table_privilege('kapsel_tenant', c.oid, 'select') order by 1`)
	for _, table := range tenantTables {
		fill(t, owner, table, mine)
		fill(t, owner, table, theirs)
	}
	for _, table := range tenantTables {
		name := pgx.Identifier{table}.Sanitize()
		var own, foreign, hidden int
		err := db.AsTenant(t.Context(), mine, func(tx pgx.Tx) error {
			err := tx.QueryRow(t.Context(), fmt.Sprintf(`select count(*) filter (where tenant_id = $1), count(*) filter (where tenant_id <> $1) from %s`, name), mine).
				Scan(&own, &foreign)
			if err != nil {
				return err
			}
			return tx.QueryRow(t.Context(), fmt.Sprintf(`select count(*) from %s where tenant_id = $1`, name), theirs).Scan(&hidden)
		})
		if err != nil || own != 1 || foreign != 0 || hidden != 0 {
			t.Errorf("%s: a tenant sees %d rows of its own and %d of others (%d when it asks for them), %v: want 1, 0, 0", table, own, foreign, hidden, err)
		}
		// What was not bound to a tenant sees nothing.
		var unbound int
		if _, err = owner.Exec(t.Context(), "begin; set local role kapsel_tenant"); err == nil {
			err = owner.QueryRow(t.Context(), "select count(*) from "+name).Scan(&unbound)
		}
		if err != nil || unbound != 0 {
			t.Errorf("%s: without a tenant %d rows are seen, %v", table, unbound, err)
		}
		if _, err := owner.Exec(t.Context(), "rollback"); err != nil {
			t.Fatal(err)
		}
		for _, write := range []string{"update %s set tenant_id = tenant_id where tenant_id = $1", "delete from %s where tenant_id = $1"} {
			err := db.AsTenant(t.Context(), mine, func(tx pgx.Tx) error {
				tag, err := tx.Exec(t.Context(), fmt.Sprintf(write, name), theirs)
				if err == nil && tag.RowsAffected() != 0 {
					t.Errorf("%s: %s touched %d rows of another tenant", table, write, tag.RowsAffected())
				}
				return err
			})
			if err != nil && !refused(err, permissionDenied) {
				t.Errorf("%s: %s: %v", table, write, err)
			}
		}
		err = db.AsTenant(t.Context(), mine, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), fmt.Sprintf("update %s set tenant_id = $1", name), theirs)
			return err
		})
		if !refused(err, permissionDenied) {
			t.Errorf("%s: a row was given to another tenant: %v", table, err)
		}
	}
	for _, table := range tenantTables {
		var left int
		if err := owner.QueryRow(t.Context(), "select count(*) from "+pgx.Identifier{table}.Sanitize()).Scan(&left); err != nil || left != 2 {
			t.Errorf("%s: %d of 2 rows are left, %v", table, left, err)
		}
	}
}

// The operator's role is for tenants as such. For what a tenant has, an operator's request is bound to that tenant.
func TestOperatorsRoleReadsNothingOfATenant(t *testing.T) {
	_, owner := open(t)
	for privilege, want := range map[string][]string{
		"select": {"api_keys", "tenants"}, "insert": {"audit_entries", "erasures", "tenants"}, "update": {"api_keys", "tenants"}, "references": nil,
	} {
		if got := names(t, owner, tables+" and has_any_column_privilege('kapsel_operator', c.oid, $1) order by 1", privilege); !slices.Equal(got, want) {
			t.Errorf("the operator's role may %s %v, want %v", privilege, got, want)
		}
	}
	if got := names(t, owner, tables+" and has_table_privilege('kapsel_operator', c.oid, 'delete, truncate, trigger') order by 1"); len(got) > 0 {
		t.Errorf("the operator's role may delete from %v", got)
	}
	columns := names(t, owner, `select attname::text from pg_attribute where attrelid = 'api_keys'::regclass and attnum > 0
		and has_column_privilege('kapsel_operator', 'api_keys'::regclass, attnum, 'select') order by 1`)
	if !slices.Equal(columns, []string{"key_id", "revoked_at", "tenant_id"}) {
		t.Errorf("the operator's role sees %v of API keys: never their hashes", columns)
	}
}

// Entries are written once: neither the service nor a slip of the owner changes or removes one.
func TestAuditLogIsAppendOnly(t *testing.T) {
	db, owner := open(t)
	tenant := id.New()
	fill(t, owner, "audit_entries", tenant)
	for _, statement := range []string{"update audit_entries set detail = ''", "delete from audit_entries", "truncate audit_entries"} {
		if _, err := db.Engine().Exec(t.Context(), statement); !refused(err, permissionDenied) {
			t.Errorf("the engine's %s: %v", statement, err)
		}
		err := db.AsTenant(t.Context(), tenant, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), statement)
			return err
		})
		if !refused(err, permissionDenied) {
			t.Errorf("a tenant's %s: %v", statement, err)
		}
		if _, err := owner.Exec(t.Context(), statement); !refused(err, "23000") || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("the owner's %s: %v", statement, err)
		}
	}
}

// The setting of one transaction must not live on in the connection that the next one gets.
func TestTenantOfOneTransactionDoesNotLeakIntoTheNext(t *testing.T) {
	db, owner := open(t)
	tenants := []uuid.UUID{id.New(), id.New()}
	for _, tenant := range tenants {
		if _, err := owner.Exec(t.Context(), "insert into tenants (tenant_id, display_name) values ($1, '')", tenant); err != nil {
			t.Fatal(err)
		}
	}
	var group sync.WaitGroup
	for i := range 16 {
		group.Go(func() {
			for range 20 {
				var seen uuid.UUID
				err := db.AsTenant(t.Context(), tenants[i%2], func(tx pgx.Tx) error {
					return tx.QueryRow(t.Context(), "select tenant_id from tenants").Scan(&seen)
				})
				if err != nil || seen != tenants[i%2] {
					t.Errorf("tenant %s sees %s, %v", tenants[i%2], seen, err)
				}
			}
		})
	}
	group.Wait()
}

func TestLedgerIsAppendOnly(t *testing.T) {
	db, owner := open(t)
	fill(t, owner, "attempts", id.New())
	for _, statement := range []string{"update attempts set diagnosis = 'better'", "update attempts set leaf = ''", "delete from attempts", "truncate attempts"} {
		if _, err := db.Engine().Exec(t.Context(), statement); !refused(err, permissionDenied) {
			t.Errorf("the engine's %s: %v", statement, err)
		}
		err := db.AsTenant(t.Context(), id.New(), func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), statement)
			return err
		})
		if !refused(err, permissionDenied) {
			t.Errorf("a tenant's %s: %v", statement, err)
		}
	}
	// Even the owner is stopped, in a partition too, unless it removes the guard or the partition.
	partition := names(t, owner, "select tableoid::regclass::text from attempts")[0]
	for _, statement := range []string{"update attempts set diagnosis = 'better'", "delete from attempts", "delete from " + partition, "update " + partition + " set leaf = ''"} {
		if _, err := owner.Exec(t.Context(), statement); !refused(err, "23000") || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("the owner's %s: %v", statement, err)
		}
	}
	if left := names(t, owner, "select diagnosis from attempts"); !slices.Equal(left, []string{"x"}) {
		t.Errorf("the ledger holds %q", left)
	}
}

// Events keep their bytes: nobody but retention, which drops partitions, takes them away.
func TestEngineCannotChangeWhatItStored(t *testing.T) {
	db, _ := open(t)
	for _, statement := range []string{"update events set body = ''", "delete from events", "truncate events", "delete from dead_letters",
		"update dead_letters set diagnosis = ''", "delete from tree_heads", "update tree_heads set note = ''", "delete from tiles", "delete from logs"} {
		if _, err := db.Engine().Exec(t.Context(), statement); !refused(err, permissionDenied) {
			t.Errorf("%s: %v", statement, err)
		}
	}
}

func TestNodesThatStartTogetherMigrateOnce(t *testing.T) {
	url := pgtest.New(t, nil)
	var mu sync.Mutex
	var ran []int
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			n, err := store.Migrate(t.Context(), url)
			if err != nil {
				t.Errorf("migrate: %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			ran = append(ran, n)
		})
	}
	group.Wait()
	slices.Sort(ran)
	if len(ran) != 4 || ran[2] != 0 || ran[3] == 0 {
		t.Errorf("four nodes ran %v migrations: one of them should run all", ran)
	}
}

func TestPartitionsAreMadeAheadAndOnlyOnce(t *testing.T) {
	db, owner := open(t)
	made, err := db.MakePartitions(t.Context(), db.Engine(), 20)
	if err != nil || made == 0 {
		t.Fatalf("made %d partitions, %v", made, err)
	}
	if again, err := db.MakePartitions(t.Context(), db.Engine(), 20); err != nil || again != 0 {
		t.Errorf("made %d partitions again, %v", again, err)
	}
	// Today's rows are not in the partition that catches all.
	tenant := id.New()
	if _, err := owner.Exec(t.Context(), `insert into events (tenant_id, event_id, endpoint_id, received_at, body, headers, content_type, event_type, dedup_key,
		source_address, verification, defect) values ($1, $2, $1, now(), '', '', '', '', '', '', '', '')`, tenant, id.New()); err != nil {
		t.Fatal(err)
	}
	if got := names(t, owner, "select tableoid::regclass::text from events where tableoid = 'events_default'::regclass"); len(got) != 0 {
		t.Error("an event of today stands in events_default")
	}
	guarded := names(t, owner, `select c.relname::text from pg_class c where c.relispartition and c.relkind = 'r' and c.relname like 'attempts%'
		and not exists (select from pg_trigger g where g.tgrelid = c.oid and g.tgname = 'attempts_append_only')`)
	if len(guarded) != 0 {
		t.Errorf("partitions without the guard: %v", guarded)
	}
}

// What is put together from several statements is of one moment, and nothing is written by the way.
func TestReadingSeesOneMoment(t *testing.T) {
	db, owner := open(t)
	mine := id.New()
	if _, err := owner.Exec(t.Context(), "set session_replication_role = replica"); err != nil {
		t.Fatal(err)
	}
	const table = "redeliveries"
	count := func(tx pgx.Tx) (n int) {
		if err := tx.QueryRow(t.Context(), "select count(*) from "+table).Scan(&n); err != nil {
			t.Error(err)
		}
		return n
	}
	err := db.ReadAsTenant(t.Context(), mine, func(tx pgx.Tx) error {
		before := count(tx)
		fill(t, owner, table, mine)
		if after := count(tx); after != before {
			t.Errorf("%d rows became %d within one reading", before, after)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	err = db.ReadAsTenant(t.Context(), mine, func(tx pgx.Tx) error {
		if count(tx) != 1 {
			t.Error("a reading that begins later does not see the row")
		}
		_, err := tx.Exec(t.Context(), "delete from "+table)
		return err
	})
	if !refused(err, "25006") { // read_only_sql_transaction
		t.Errorf("a delete within a reading: %v", err)
	}
}
