// Package pgtest gives tests databases on a real PostgreSQL server. A test process has one cluster,
// started by the first test that asks, in memory where the machine allows and without any durability. Each
// test gets a database of its own, cloned from a migrated template in some 10 ms.
//
// A package that uses it should have
//
//	func TestMain(m *testing.M) { pgtest.Main(m) }
//
// so that the cluster is stopped and removed at the end. Without that it ends with the process, and
// a later run removes what is left.
//
// KAPSEL_TEST_DATABASE_URL names a server to use instead, as a role that may create databases.
package pgtest

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// setupTimeout bounds the start of a cluster and the migration of a template, on a busy machine.
const setupTimeout = 2 * time.Minute

// Migrate brings the empty database at dsn to the schema under test.
type Migrate func(ctx context.Context, dsn string) error

// shared is what the tests of this process share.
var shared struct {
	sync.Mutex
	cluster   *cluster
	templates map[uintptr]string // database names, by the migrate function's address
	databases int
}

// Main runs the tests and then stops and removes the cluster, if they had one started.
func Main(m *testing.M) {
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "pgtest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// New returns the connection URL of a fresh database that migrate was run on, or that is empty when migrate is
// nil. It is dropped when the test ends, connections or not. migrate runs once a process and must be a
// named function: closures over different variables could not be told apart.
func New(t testing.TB, migrate Migrate) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	c, template, name, err := prepare(ctx, migrate)
	if err != nil {
		t.Fatalf("prepare a test database: %v", err)
	}
	if err := c.clone(ctx, name, template); err != nil {
		t.Fatalf("clone a test database: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
		defer cancel()
		if err := c.drop(ctx, name); err != nil {
			t.Errorf("drop the test database: %v", err)
		}
	})
	return c.dsn(name)
}

// prepare returns the cluster, the template for migrate, and the name for one more database.
func prepare(ctx context.Context, migrate Migrate) (_ *cluster, template, name string, err error) {
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil {
		if shared.cluster, err = startCluster(ctx); err != nil {
			return nil, "", "", err
		}
		shared.templates = map[uintptr]string{}
	}
	c := shared.cluster
	key := reflect.ValueOf(migrate).Pointer()
	template, ok := shared.templates[key]
	if !ok {
		template = fmt.Sprintf("%stemplate_%d", c.prefix, len(shared.templates))
		if err := c.makeTemplate(ctx, template, migrate); err != nil {
			return nil, "", "", err
		}
		shared.templates[key] = template
	}
	shared.databases++
	return c, template, fmt.Sprintf("%s%d", c.prefix, shared.databases), nil
}

// stop ends what prepare started.
func stop() error {
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), setupTimeout)
	defer cancel()
	c := shared.cluster
	shared.cluster = nil
	if c.server != nil {
		return c.remove(ctx)
	}
	for _, template := range shared.templates {
		if err := c.drop(ctx, template); err != nil {
			return fmt.Errorf("drop a template: %w", err)
		}
	}
	return nil
}

// quote makes name fit into a statement.
func quote(name string) string { return pgx.Identifier{name}.Sanitize() }
