package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/kapsel-dev/kapsel/migrations"
)

const (
	// The migration lock is asked for each second, for two minutes: nodes that start together wait for the first.
	lockRetrySeconds = 1
	lockTries        = 120
	// A migration waits so long for the lock of a table, and intake with it, behind it in the queue: less than webhooks are held
	// for. Then it gives way, and comes again after a pause, for some minutes.
	tableLockTimeout = "2s"
	tableLockPause   = 2 * time.Second
	tableLockTries   = 60
)

// Migrate brings the schema of the database that url names up to date, as the login role of url, and returns how many
// migrations it ran. Several nodes may call it at once: an advisory lock lets one run them, and the others wait. A table that
// somebody reads for long is waited for in turns, so that nobody waits long behind the migration.
func Migrate(ctx context.Context, url string) (int, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return 0, fmt.Errorf("read database URL: %w", err)
	}
	if err := checkPooling(ctx, url); err != nil {
		return 0, err
	}
	config.MaxConns = 4
	if config.AfterConnect, err = prepareSession(config.ConnConfig, map[string]string{"lock_timeout": tableLockTimeout}); err != nil {
		return 0, err
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return 0, fmt.Errorf("open database for migration: %w", err)
	}
	defer pool.Close()
	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()

	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(lockRetrySeconds, lockTries))
	if err != nil {
		return 0, fmt.Errorf("make migration lock: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, migrations.Files, goose.WithSessionLocker(locker))
	if err != nil {
		return 0, fmt.Errorf("read migrations: %w", err)
	}
	ran := 0
	for try := 1; ; try++ {
		results, err := provider.Up(ctx)
		ran += len(results)
		var partial *goose.PartialError
		if errors.As(err, &partial) {
			ran += len(partial.Applied)
		}
		switch {
		case err == nil:
			return ran, nil
		case !isLockTimeout(err) || try == tableLockTries:
			return ran, fmt.Errorf("migrate: %w", explainMigration(err))
		}
		select {
		case <-ctx.Done():
			return ran, fmt.Errorf("migrate: %w", err)
		case <-time.After(tableLockPause):
		}
	}
}

// explainMigration says what to do about what PostgreSQL refuses in words for its own administrators.
func explainMigration(err error) error {
	switch {
	case isSQLState(err, "42501"): // insufficient privilege
		return fmt.Errorf("%w: the role of the database URL must own the schema or be allowed to create in it, and have CREATEROLE "+
			"or be a member of kapsel_engine, kapsel_tenant and kapsel_operator", err)
	case isSQLState(err, "25006"): // read-only transaction
		return fmt.Errorf("%w: this server takes no writes: name the primary, or all servers with target_session_attrs=read-write", err)
	}
	return explainConnect(err)
}
