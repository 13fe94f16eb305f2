package embedpg

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// childDataDir makes the test binary a Kapsel of its own: it starts a server there, commits a row,
// says so, and waits to be killed.
const childDataDir = "EMBEDPG_TEST_CHILD_DATA_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDataDir); dir != "" {
		if err := beChild(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if err := os.RemoveAll(madeDir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func beChild(dir string) error {
	ctx := context.Background()
	server, err := Start(ctx, Config{DataDir: dir, Durable: true})
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, server.ConnString("postgres"))
	if err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "create table if not exists runs (n serial)"); err != nil {
		return err
	}
	if _, err := conn.Exec(ctx, "insert into runs default values"); err != nil {
		return err
	}
	fmt.Println(server.PID())
	select {}
}

// openDir returns an empty directory that every user can pass through, unlike t.TempDir's.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "embedpg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// madeDir holds the data directory that madeCluster copies.
var madeDir string

// madeCluster returns a data directory with a new cluster in it: a copy, which takes a tenth of initdb's time.
func madeCluster(t *testing.T) string {
	t.Helper()
	if madeDir == "" {
		dir, err := os.MkdirTemp("", "embedpg-made-")
		if err != nil {
			t.Fatal(err)
		}
		madeDir = dir
		if err := os.Chmod(dir, 0o711); err != nil {
			t.Fatal(err)
		}
		s, err := Start(t.Context(), Config{DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	dir := filepath.Join(openDir(t), "pg")
	if out, err := exec.Command("cp", "-Rp", madeDir, dir).CombinedOutput(); err != nil {
		t.Fatalf("copy a cluster: %v: %s", err, out)
	}
	return dir
}

// start starts a server that the test's end stops.
func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// startError returns why a server did not start.
func startError(t *testing.T, cfg Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := Start(ctx, cfg)
	if err == nil {
		s.Stop(context.Background())
		t.Fatal("the server started, want an error")
	}
	return err
}

// wantError checks that err tells what a person needs to know.
func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q:\n%v", part, err)
		}
	}
}

// ask runs statements on the server and returns the last one's only value.
func ask[T any](t *testing.T, s *Server, statements ...string) (answer T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.ConnString("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	last := len(statements) - 1
	for _, statement := range statements[:last] {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.QueryRow(t.Context(), statements[last]).Scan(&answer); err != nil {
		t.Fatal(err)
	}
	return answer
}

// startChild runs a Kapsel in another process and returns it once its row is committed.
func startChild(t *testing.T, dir string) (child *exec.Cmd, postmaster int) {
	t.Helper()
	child = exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDataDir+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		child.Process.Kill()
		child.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(line, &postmaster); err != nil {
		t.Fatalf("the child did not start a server: %v", err)
	}
	return child, postmaster
}

// awaitGone waits until there is no process pid.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); alive(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

// kill sends a signal to one process that the test started.
func kill(t *testing.T, pid int, signal syscall.Signal) {
	t.Helper()
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release()
	if err := p.Signal(signal); err != nil {
		t.Fatal(err)
	}
}
