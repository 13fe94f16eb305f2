package store_test

import (
	"context"
	"testing"
	"time"

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
