package embedpg

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// TestServerKeepsDataOverRestartsAndStops is also run as an ordinary user; see
// TestOrdinaryUserRunsAServer.
func TestServerKeepsDataOverRestartsAndStops(t *testing.T) {
	dir := filepath.Join(openDir(t), "state", "postgres")
	s := start(t, Config{DataDir: dir, Durable: true})
	dsn, pid := s.ConnString("postgres"), s.PID()
	if n := ask[int](t, s, "create table kept (n int)", "insert into kept values (1)", "select count(*) from kept"); n != 1 {
		t.Fatalf("read %d rows, want 1", n)
	}
	for i, immediate := range []bool{false, true} {
		if err := s.Restart(t.Context(), immediate); err != nil {
			t.Fatal(err)
		}
		if s.PID() == pid {
			t.Errorf("immediate %v: the process is still %d", immediate, pid)
		}
		if s.ConnString("postgres") != dsn {
			t.Errorf("immediate %v: the connection string changed to %s", immediate, s.ConnString("postgres"))
		}
		if n := ask[int](t, s, "insert into kept values (1)", "select count(*) from kept"); n != i+2 {
			t.Errorf("immediate %v: read %d rows, want %d", immediate, n, i+2)
		}
	}
	select {
	case <-s.Done():
		t.Error("Done is closed while the server runs")
	default:
	}
	for range 2 {
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	<-s.Done()
	if err := s.Err(); err != nil {
		t.Errorf("Err is %v after Stop", err)
	}
	if err := s.Restart(t.Context(), false); err == nil {
		t.Error("a stopped server restarted")
	}
	if _, ok := s.dir.postmaster(); ok {
		t.Error("a pid file is left after a clean stop")
	}

	again := start(t, Config{DataDir: dir, Durable: true})
	if again.ConnString("postgres") != dsn {
		t.Errorf("the connection string changed to %s", again.ConnString("postgres"))
	}
	if n := ask[int](t, again, "select count(*) from kept"); n != 3 {
		t.Errorf("read %d rows, want 3", n)
	}
}

func TestSettings(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		want map[string]string
	}{
		{"durable", Config{Durable: true}, map[string]string{
			"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_wal_size": "4GB", "jit": "off"}},
		{"throwaway", Config{}, map[string]string{
			"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "listen_addresses": ""}},
		{"given", Config{Settings: map[string]string{"max_connections": "17"}}, map[string]string{"max_connections": "17"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.DataDir = madeCluster(t)
			s := start(t, tt.cfg)
			for name, want := range tt.want {
				if got := ask[string](t, s, "show "+name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
}

func TestTemporaryDirectoryAndSocketsAreRemovedByStop(t *testing.T) {
	s := start(t, Config{})
	if got := ask[int](t, s, "select 1"); got != 1 {
		t.Fatalf("read %d", got)
	}
	root, sockets := s.dir.root, s.sockets
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{root, sockets} {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", dir, err)
		}
	}
}

func TestSocketIsPrivateWhateverTheDataDirectoryIsCalled(t *testing.T) {
	for _, name := range []string{"plain", `sp ace"quote+plus%41&x=1`, "com,ma", strings.Repeat("long", 25)} {
		dir := filepath.Join(openDir(t), name)
		if err := os.Rename(madeCluster(t), dir); err != nil {
			t.Fatal(err)
		}
		s := start(t, Config{DataDir: dir})
		if got := ask[int](t, s, "select 1"); got != 1 {
			t.Errorf("%s: read %d", name, got)
		}
		info, err := os.Stat(s.sockets)
		if err != nil {
			t.Fatal(err)
		}
		if mode := info.Mode().Perm(); mode != 0o700 {
			t.Errorf("%s: the socket directory has mode %o, want 700", name, mode)
		}
		if n := len(socketPath(s.sockets)); n > maxSocketPath {
			t.Errorf("%s: the socket's path has %d bytes", name, n)
		}
	}
}

func TestDeathOfTheServerIsNoticed(t *testing.T) {
	s := start(t, Config{DataDir: madeCluster(t)})
	kill(t, s.PID(), syscall.SIGKILL)
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("nobody noticed that the server was killed")
	}
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("Err is %v, want that it was killed", err)
	}
	if err := s.Restart(t.Context(), false); err == nil {
		t.Error("a dead server restarted")
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("stop a dead server: %v", err)
	}
	if got := ask[int](t, start(t, Config{DataDir: s.dir.root}), "select 1"); got != 1 {
		t.Errorf("started again, it reads %d", got)
	}
}

func TestFailedStartShowsTheLog(t *testing.T) {
	err := startError(t, Config{DataDir: madeCluster(t), Settings: map[string]string{"shared_buffers": "lots"}})
	wantError(t, err, `invalid value for parameter "shared_buffers"`)
}

func TestStartIsBoundByItsContext(t *testing.T) {
	dir := filepath.Join(openDir(t), "pg")
	gone := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	if _, err := Start(ctx, Config{DataDir: dir}); !errors.Is(err, gone) {
		t.Errorf("got %v, want the cause of the context's end", err)
	}
	// What it left behind is no obstacle.
	s := start(t, Config{DataDir: dir})
	if got := ask[int](t, s, "select 1"); got != 1 {
		t.Errorf("read %d", got)
	}
}

func TestStopBreaksOffRunningStatements(t *testing.T) {
	s := start(t, Config{DataDir: madeCluster(t)})
	conn, err := pgx.Connect(t.Context(), s.ConnString("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	failed := make(chan error)
	go func() {
		_, err := conn.Exec(context.Background(), "select pg_sleep(300)")
		failed <- err
	}()
	began := time.Now()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil {
		t.Error("the statement succeeded")
	}
	if took := time.Since(began); took > fastStopWait {
		t.Errorf("Stop took %v", took)
	}
}

func TestOversizedLogIsPutAside(t *testing.T) {
	dir := madeCluster(t)
	s := start(t, Config{DataDir: dir})
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(s.dir.log(), maxLogBytes+1); err != nil {
		t.Fatal(err)
	}
	s = start(t, Config{DataDir: dir})
	for path, small := range map[string]bool{s.dir.log(): true, s.dir.oldLog(): false} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if (info.Size() < maxLogBytes) != small {
			t.Errorf("%s has %d bytes", path, info.Size())
		}
	}
}

func TestLogShowsNoRows(t *testing.T) {
	s := start(t, Config{DataDir: madeCluster(t)})
	conn, err := pgx.Connect(t.Context(), s.ConnString("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "create table payloads (body text primary key)"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err = conn.Exec(t.Context(), "insert into payloads values ($1)", "top secret body")
	}
	if err == nil {
		t.Fatal("a repeated key was taken")
	}
	text, err := os.ReadFile(s.dir.log())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "duplicate key") || strings.Contains(string(text), "top secret") {
		t.Errorf("want the error without the row, got:\n%s", text)
	}
}

func TestEachChangeOfStateIsLogged(t *testing.T) {
	var out strings.Builder
	s := start(t, Config{Logger: slog.New(slog.NewTextHandler(&out, nil))})
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"PostgreSQL cluster made", "PostgreSQL started", "PostgreSQL stopped"} {
		if n := strings.Count(out.String(), `msg="`+line+`"`); n != 1 {
			t.Errorf("%q was logged %d times, want once:\n%s", line, n, out.String())
		}
	}
}
