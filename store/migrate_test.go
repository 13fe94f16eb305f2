package store_test

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/migrations"
	"github.com/kapsel-dev/kapsel/store"
)

// migrateFirst makes the first schema only.
func migrateFirst(ctx context.Context, url string) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.Files)
	if err != nil {
		return err
	}
	_, err = provider.UpTo(ctx, 1)
	return err
}

// Somebody reads the table of events for long, such as pg_dump, when a new version comes: the migration gives way to intake again and
// again, and is done when the reader is.
func TestMigrationGivesWayToIntake(t *testing.T) {
	url := pgtest.New(t, migrateFirst)
	reader, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close(context.Background())
	writer, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer writer.Close(context.Background())
	tx, err := reader.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "select from events"); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := store.Migrate(t.Context(), url)
		done <- err
	}()
	waited := false
	for began := time.Now(); time.Since(began) < 5*time.Second; time.Sleep(20 * time.Millisecond) {
		at := time.Now()
		// As intake's lock. It waits behind the migration, and not for the reader.
		if _, err := writer.Exec(t.Context(), "begin; lock table events in row exclusive mode; commit"); err != nil {
			t.Fatal(err)
		}
		waited = waited || time.Since(at) > time.Second
	}
	if !waited {
		t.Error("no migration waited for the table: this run has shown nothing")
	}
	select {
	case err := <-done:
		t.Fatalf("the migration ended while the table was read: %v", err)
	default:
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if ran, err := store.Migrate(t.Context(), url); err != nil || ran != 0 {
		t.Errorf("a second migration ran %d, %v", ran, err)
	}
}

// newOwner makes a login role without rights on the server, and an empty database that it owns. It returns the URL of that and the role.
func newOwner(t *testing.T, owner *pgx.Conn, text string) (databaseURL, role string) {
	t.Helper()
	role = "owner_" + strings.ReplaceAll(uuid.NewString(), "-", "")
	exec := func(ctx context.Context, sql string) {
		t.Helper()
		if _, err := owner.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	exec(t.Context(), "create role "+role+" login")
	exec(t.Context(), "create database "+role+" owner "+role)
	t.Cleanup(func() {
		exec(context.Background(), "drop database "+role+" with (force)")
		exec(context.Background(), "drop role "+role)
	})
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	u.User, u.Path = url.User(role), "/"+role
	return u.String(), role
}

// Whoever administers the server may make the three roles, and let nobody else make any.
func TestRolesMayBeMadeBeforehand(t *testing.T) {
	text := pgtest.New(t, migrate) // which makes them
	admin := connect(t, text)
	databaseURL, role := newOwner(t, admin, text)
	if _, err := store.Migrate(t.Context(), databaseURL); err == nil || !strings.Contains(err.Error(), "kapsel_operator") {
		t.Errorf("migrated as a role that is no member of the three: %v, want an error that says what is missing", err)
	}
	if _, err := admin.Exec(t.Context(), "grant kapsel_engine, kapsel_tenant, kapsel_operator to "+role); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Migrate(t.Context(), databaseURL); err != nil {
		t.Fatalf("migrate as a member of the three roles: %v", err)
	}
	db, err := store.Open(t.Context(), databaseURL)
	if err != nil {
		t.Fatalf("open as their member: %v", err)
	}
	db.Close()
}

func TestMigrationOnAStandbySaysWhatToName(t *testing.T) {
	text := pgtest.New(t, migrateFirst)
	if !strings.Contains(text, "?") {
		t.Fatalf("%s: want parameters", text)
	}
	_, err := store.Migrate(t.Context(), text+"&default_transaction_read_only=on")
	if err == nil || !strings.Contains(err.Error(), "target_session_attrs") {
		t.Errorf("%v: want an error that says how to name the primary", err)
	}
}
