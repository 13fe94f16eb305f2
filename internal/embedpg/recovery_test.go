package embedpg

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestCommittedRowsSurviveAKillOfTheParent(t *testing.T) {
	dir := filepath.Join(openDir(t), "pg")
	// At once, while the kernel's signal is still taking the server down, and after a rest.
	for run, rest := range []bool{false, true} {
		child, postmaster := startChild(t, dir)
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		child.Wait()
		if rest && runtime.GOOS == "linux" {
			awaitGone(t, postmaster)
		}
		s := start(t, Config{DataDir: dir, Durable: true})
		if n := ask[int](t, s, "select count(*) from runs"); n != run+1 {
			t.Errorf("rest %v: read %d rows, want %d", rest, n, run+1)
		}
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestServerDiesWithItsParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux signals children of a dead parent")
	}
	child, postmaster := startChild(t, madeCluster(t))
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()
	awaitGone(t, postmaster)
}

func TestParentAndServerKilledTogether(t *testing.T) {
	dir := madeCluster(t)
	child, postmaster := startChild(t, dir)
	kill(t, postmaster, syscall.SIGKILL)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()
	s := start(t, Config{DataDir: dir, Durable: true})
	if n := ask[int](t, s, "select count(*) from runs"); n != 1 {
		t.Errorf("read %d rows, want 1", n)
	}
}

func TestServerThatOutlivedItsParentIsEnded(t *testing.T) {
	dir := madeCluster(t)
	s := start(t, Config{DataDir: dir})
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Like Start, without the signal that ties it to us.
	orphan := exec.Command(s.bins.postgres(), append([]string{"-D", s.dir.cluster(), "-k", quoteListEntry(s.sockets)}, s.args...)...)
	orphan.Dir = s.dir.cluster()
	orphan.SysProcAttr = attributes(s.acct)
	withoutParentDeath(orphan.SysProcAttr)
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- orphan.Wait() }()
	for pm, _ := s.dir.postmaster(); pm.status != "ready"; pm, _ = s.dir.postmaster() {
		select {
		case err := <-ended:
			t.Fatalf("the server to be left over ended: %v", err)
		default:
		}
	}

	s = start(t, Config{DataDir: dir})
	if err := <-ended; err != nil {
		t.Errorf("the earlier server was not stopped cleanly: %v", err)
	}
	if got := ask[int](t, s, "select 1"); got != 1 {
		t.Errorf("read %d", got)
	}
}

func TestStalePidFileThatNamesAnotherProcessIsNoObstacle(t *testing.T) {
	dir := madeCluster(t)
	s := start(t, Config{DataDir: dir})
	pidFile, err := os.ReadFile(s.dir.pidFile())
	if err != nil {
		t.Fatal(err)
	}
	pid := s.PID()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	bystander := exec.Command("sleep", "300")
	bystander.SysProcAttr = attributes(s.acct) // a process that PostgreSQL may signal looks like its own
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- bystander.Wait() }()
	defer func() {
		bystander.Process.Kill()
		<-ended
	}()
	stale := strings.Replace(string(pidFile), strconv.Itoa(pid), strconv.Itoa(bystander.Process.Pid), 1)
	if err := os.WriteFile(s.dir.pidFile(), []byte(stale), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.acct.own(s.dir.pidFile()); err != nil {
		t.Fatal(err)
	}

	s = start(t, Config{DataDir: dir})
	if got := ask[int](t, s, "select 1"); got != 1 {
		t.Errorf("read %d", got)
	}
	select {
	case <-ended:
		t.Error("the process that the pid file named was ended")
	default:
	}
}

func TestUnfinishedClusterIsMadeAnew(t *testing.T) {
	dir := filepath.Join(openDir(t), "pg")
	unready := filepath.Join(dir, "cluster.new")
	if err := os.MkdirAll(filepath.Join(unready, "base"), 0o711); err != nil {
		t.Fatal(err)
	}
	s := start(t, Config{DataDir: dir})
	if got := ask[int](t, s, "select 1"); got != 1 {
		t.Errorf("read %d", got)
	}
	if _, err := os.Stat(unready); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left: %v", unready, err)
	}
}

func TestDiscardRemovesOnlyWhatNobodyHolds(t *testing.T) {
	dir := madeCluster(t)
	s := start(t, Config{DataDir: dir})
	if err := Discard(t.Context(), dir); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v for a directory in use", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Discard(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is left: %v", err)
	}
	foreign := openDir(t)
	if err := os.WriteFile(filepath.Join(foreign, "thesis.tex"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Discard(t.Context(), foreign); err == nil {
		t.Error("a directory of somebody else was discarded")
	}
}
