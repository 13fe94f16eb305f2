package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/embedpg"
)

// migrationLock is held in the maintenance database while a template is migrated. Roles belong to the
// whole server, so two processes that make them at once on a shared server would clash.
const migrationLock = 0x6b617073656c // "kapsel"

// cluster is the server that this process's databases are on.
type cluster struct {
	admin    string          // connection URL of the maintenance database
	prefix   string          // of our databases' names
	strategy string          // of CREATE DATABASE
	server   *embedpg.Server // nil when it is not ours
	dataDir  string
}

// startCluster starts a throw-away cluster, unless the environment names a server.
func startCluster(ctx context.Context) (*cluster, error) {
	if dsn := os.Getenv("KAPSEL_TEST_DATABASE_URL"); dsn != "" {
		prefix := "kapsel_test_" + strings.ToLower(rand.Text()[:8]) + "_"
		return &cluster{admin: dsn, prefix: prefix, strategy: "wal_log"}, nil
	}
	dir, err := makeDirectory(ctx, memoryDirectory())
	if err != nil {
		return nil, err
	}
	server, err := embedpg.Start(ctx, embedpg.Config{
		DataDir: dir,
		Settings: map[string]string{
			"shared_buffers":  "64MB",
			"max_connections": "200",
			// What the log may take of the machine's memory.
			"max_wal_size": "256MB",
			"min_wal_size": "32MB",
		},
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &cluster{
		admin:    server.ConnString("postgres"),
		prefix:   "test_",
		strategy: "file_copy", // twice as fast as wal_log in memory
		server:   server,
		dataDir:  dir,
	}, nil
}

// remove stops a cluster of ours and removes its files.
func (c *cluster) remove(ctx context.Context) error {
	return errors.Join(c.server.Stop(ctx), os.RemoveAll(c.dataDir))
}

// dsn returns the connection URL of one database.
func (c *cluster) dsn(database string) string {
	if u, err := url.Parse(c.admin); err == nil && u.Scheme != "" {
		u.Path = "/" + database
		return u.String()
	}
	return c.admin + " dbname=" + database // the last of two settings counts
}

// do runs statements in the maintenance database.
func (c *cluster) do(ctx context.Context, statements ...string) error {
	conn, err := pgx.Connect(ctx, c.admin)
	if err != nil {
		return fmt.Errorf("connect to the test server: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// makeTemplate makes a migrated database that nobody can connect to: a clone needs it idle.
func (c *cluster) makeTemplate(ctx context.Context, name string, migrate Migrate) error {
	conn, err := pgx.Connect(ctx, c.admin)
	if err != nil {
		return fmt.Errorf("connect to the test server: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// The end of the session unlocks it.
	if _, err := conn.Exec(ctx, "select pg_advisory_lock($1)", int64(migrationLock)); err != nil {
		return fmt.Errorf("take the migration lock: %w", err)
	}
	if _, err := conn.Exec(ctx, "create database "+quote(name)+" template template0"); err != nil {
		return fmt.Errorf("make a template: %w", err)
	}
	if migrate != nil {
		if err := migrate(ctx, c.dsn(name)); err != nil {
			_, dropErr := conn.Exec(ctx, "drop database "+quote(name)+" with (force)")
			return errors.Join(fmt.Errorf("migrate a template: %w", err), dropErr)
		}
	}
	if _, err := conn.Exec(ctx, "alter database "+quote(name)+" allow_connections false"); err != nil {
		return fmt.Errorf("close the template: %w", err)
	}
	return nil
}

func (c *cluster) clone(ctx context.Context, name, template string) error {
	return c.do(ctx, "create database "+quote(name)+" template "+quote(template)+" strategy "+c.strategy)
}

func (c *cluster) drop(ctx context.Context, name string) error {
	return c.do(ctx, "drop database "+quote(name)+" with (force)")
}
