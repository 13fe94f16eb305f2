package pgtest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/embedpg"
)

func TestMain(m *testing.M) { Main(m) }

var migrations int

// countedMigration is of one test alone, so that it runs once a process, however often the tests run.
func countedMigration(ctx context.Context, dsn string) error {
	migrations++
	return migrateNotes(ctx, dsn)
}

func migrateNotes(ctx context.Context, dsn string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, "create table notes (note text); insert into notes values ('of the migration')")
	return err
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func count(t *testing.T, conn *pgx.Conn, query string, args ...any) (n int) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), query, args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEachTestHasItsOwnMigratedDatabase(t *testing.T) {
	seen := make(chan string, 8)
	t.Run("group", func(t *testing.T) {
		for range cap(seen) {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				dsn := New(t, countedMigration)
				seen <- dsn
				conn := connect(t, dsn)
				if _, err := conn.Exec(t.Context(), "insert into notes values ('mine')"); err != nil {
					t.Fatal(err)
				}
				if n := count(t, conn, "select count(*) from notes"); n != 2 {
					t.Errorf("the database holds %d notes, want the migration's and mine", n)
				}
			})
		}
	})
	close(seen)
	distinct := map[string]bool{}
	for dsn := range seen {
		distinct[dsn] = true
	}
	if len(distinct) != cap(seen) {
		t.Errorf("%d tests got %d databases", cap(seen), len(distinct))
	}
	if migrations != 1 {
		t.Errorf("migrated %d times, want once", migrations)
	}
	admin := connect(t, shared.cluster.admin)
	if n := count(t, admin, "select count(*) from pg_database where datname like $1 and datname not like '%template%'", shared.cluster.prefix+"%"); n != 0 {
		t.Errorf("%d databases are left after their tests", n)
	}
}

func TestNilMigrationGivesAnEmptyDatabase(t *testing.T) {
	conn := connect(t, New(t, nil))
	if n := count(t, conn, "select count(*) from pg_tables where schemaname = 'public'"); n != 0 {
		t.Errorf("the database has %d tables", n)
	}
}

func TestFailedMigrationIsReportedAndCanBeRepeated(t *testing.T) {
	New(t, nil) // the cluster
	broken := errors.New("broken migration")
	fail := func(context.Context, string) error { return broken }
	for range 2 {
		if _, _, _, err := prepare(t.Context(), fail); !errors.Is(err, broken) {
			t.Fatalf("got %v, want the migration's error", err)
		}
	}
}

func TestExternalServerIsUsedAndLeftClean(t *testing.T) {
	server := Durable(t)
	t.Setenv("KAPSEL_TEST_DATABASE_URL", server.ConnString("postgres"))
	shared.Lock()
	own, templates := shared.cluster, shared.templates
	shared.cluster, shared.templates = nil, nil
	shared.Unlock()
	defer func() { shared.cluster, shared.templates = own, templates }()

	t.Run("test", func(t *testing.T) {
		conn := connect(t, New(t, migrateNotes))
		if n := count(t, conn, "select count(*) from notes"); n != 1 {
			t.Errorf("the database holds %d notes, want the migration's", n)
		}
		if int(conn.PgConn().PID()) == 0 || !strings.Contains(conn.Config().Host, "kapsel-pgtest-") {
			t.Errorf("connected to %s, want the server of the environment", conn.Config().Host)
		}
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, connect(t, server.ConnString("postgres")), "select count(*) from pg_database where datname like 'kapsel%'"); n != 0 {
		t.Errorf("%d databases are left on the external server", n)
	}
}

func TestKeywordConnectionStringOfExternalServer(t *testing.T) {
	c := cluster{admin: "host=/somewhere dbname=postgres user=me"}
	cfg, err := pgx.ParseConfig(c.dsn("other"))
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Database != "other" || cfg.Host != "/somewhere" || cfg.User != "me" {
		t.Errorf("got database %q at %q as %q", cfg.Database, cfg.Host, cfg.User)
	}
}

func TestDurableServerSyncsAndSurvivesAnImmediateRestart(t *testing.T) {
	server := Durable(t)
	dsn := server.ConnString("postgres")
	conn := connect(t, dsn)
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		if n := count(t, conn, "select count(*) from pg_settings where name = $1 and setting = 'on'", setting); n != 1 {
			t.Errorf("%s is not on", setting)
		}
	}
	if _, err := conn.Exec(t.Context(), "create table kept as select 1 as n"); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if n := count(t, connect(t, dsn), "select n from kept"); n != 1 {
		t.Errorf("read %d after the restart, want 1", n)
	}
}

func TestAbandonedDirectoriesAreRemovedAndOwnedOnesKept(t *testing.T) {
	parent, err := os.MkdirTemp("", "pgtest-") // unlike t.TempDir's, its parent is open to all
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(parent)
	if err := os.Chmod(parent, 0o711); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-time.Hour)
	make := func(name string, at time.Time, files ...string) string {
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o711); err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chtimes(dir, at, at); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	abandoned := make(directoryPrefix+"abandoned", long, "lock", "postgres.log")
	young := make(directoryPrefix+"young", time.Now())
	owned := make(directoryPrefix+"owned", long)
	server, err := embedpg.Start(t.Context(), embedpg.Config{DataDir: owned})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop(context.Background())
	if err := os.Chtimes(owned, long, long); err != nil {
		t.Fatal(err)
	}

	if err := removeAbandoned(t.Context(), parent); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{abandoned: false, young: true, owned: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", filepath.Base(dir), err == nil, want)
		}
	}
}
