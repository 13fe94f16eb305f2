//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package embedpg

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRootNeedsADirectoryThatTheServerCanEnter(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has its server run as another user")
	}
	closed := filepath.Join(openDir(t), "closed")
	if err := os.Mkdir(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(closed, "pg")
	wantError(t, startError(t, Config{DataDir: dir}), "as root, PostgreSQL runs as user", dir, "/var/lib/kapsel")
}

func TestRootMakesParentsThatTheServerCanPass(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has its server run as another user")
	}
	before := syscall.Umask(0o077)
	defer syscall.Umask(before)
	dir := filepath.Join(openDir(t), "one", "two")
	s := start(t, Config{DataDir: dir})
	if got := ask[int](t, s, "select 1"); got != 1 {
		t.Errorf("read %d", got)
	}
	info, err := os.Stat(s.dir.cluster())
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid == 0 {
		t.Error("the cluster belongs to root")
	}
}

func TestOrdinaryUserRunsAServer(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other tests run as an ordinary user already")
	}
	acct := &account{name: "nobody", uid: 65534, gid: 65534}
	home := openDir(t)
	binary := filepath.Join(home, "embedpg.test") // where go test built it, others cannot enter
	copyFile(t, os.Args[0], binary)
	if err := acct.own(home); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-test.v", "-test.run=^(TestServerKeepsDataOverRestartsAndStops|TestCommittedRowsSurviveAKillOfTheParent|TestOrdinaryUser.*)$")
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "HOME="+home, "TMPDIR="+home, "XDG_STATE_HOME=", "XDG_CACHE_HOME=")
	cmd.SysProcAttr = attributes(acct)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("as an ordinary user: %v\n%s", err, out)
	}
	for _, name := range []string{"TestServerKeepsDataOverRestartsAndStops", "TestCommittedRowsSurviveAKillOfTheParent", "TestOrdinaryUserIsToldOfAClosedDirectory"} {
		if !strings.Contains(string(out), "--- PASS: "+name) {
			t.Errorf("%s did not pass as an ordinary user:\n%s", name, out)
		}
	}
}

func TestOrdinaryUserIsToldOfAClosedDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("no directory is closed to root")
	}
	closed := filepath.Join(openDir(t), "closed")
	if err := os.Mkdir(closed, 0); err != nil {
		t.Fatal(err)
	}
	wantError(t, startError(t, Config{DataDir: filepath.Join(closed, "pg")}), "make the data directory", "permission denied")
}

func TestDefaultDataDirectory(t *testing.T) {
	dir, err := DefaultDataDir()
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(dir) || filepath.Base(dir) != "kapsel" {
		t.Errorf("got %s", dir)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}
