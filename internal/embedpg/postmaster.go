package embedpg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// leftoverPoll is how often we look whether an earlier server is gone.
const leftoverPoll = 20 * time.Millisecond

// postmaster is what a server says of itself in its pid file.
type postmaster struct {
	pid    int
	status string // starting, stopping, ready, standby; empty at the very start
}

func (d directory) pidFile() string { return filepath.Join(d.cluster(), "postmaster.pid") }

// postmaster reads the pid file: the process id is its first line, the status its eighth. It exists
// while a server runs, and after one that crashed.
func (d directory) postmaster() (postmaster, bool) {
	text, err := os.ReadFile(d.pidFile())
	if err != nil {
		return postmaster{}, false
	}
	lines := strings.Split(string(text), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 0 {
		return postmaster{}, false
	}
	pm := postmaster{pid: pid}
	if len(lines) >= 8 {
		pm.status = strings.TrimSpace(lines[7])
	}
	return pm, true
}

// endLeftover makes sure that no server of an earlier Kapsel runs on the cluster. Since we hold the
// lock, whoever started it is gone; it may be on its way out already.
func (d directory) endLeftover(ctx context.Context) error {
	pm, ok := d.postmaster()
	if !ok {
		return nil
	}
	if !alive(pm.pid) {
		return nil // PostgreSQL replaces the file of a dead process itself
	}
	if !d.serves(ctx, pm.pid) {
		return d.disown()
	}
	earlier, err := os.FindProcess(pm.pid)
	if err != nil {
		return fmt.Errorf("find the earlier PostgreSQL with process id %d: %w", pm.pid, err)
	}
	defer earlier.Release()
	for _, step := range []struct {
		signal os.Signal
		wait   time.Duration
	}{
		{syscall.SIGINT, fastStopWait}, {syscall.SIGQUIT, immediateStopWait}, {os.Kill, immediateStopWait},
	} {
		if err := earlier.Signal(step.signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop the earlier PostgreSQL (process id %d) on %s: %w", pm.pid, d.root, err)
		}
		for deadline := time.Now().Add(step.wait); time.Now().Before(deadline); {
			if !alive(pm.pid) || !d.serves(ctx, pm.pid) {
				return nil
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for the end of the earlier PostgreSQL (process id %d) on %s: %w", pm.pid, d.root, context.Cause(ctx))
			case <-time.After(leftoverPoll):
			}
		}
	}
	return fmt.Errorf("the earlier PostgreSQL (process id %d) on %s does not end", pm.pid, d.root)
}

// disown puts our own process id into a pid file whose process id now belongs to somebody else.
// PostgreSQL refuses to start while that process lives, yet it takes its parent's id for stale. The
// rest of the file stays, since it names the shared memory by which PostgreSQL finds
// backends that outlived their postmaster.
func (d directory) disown() error {
	text, err := os.ReadFile(d.pidFile())
	if err != nil {
		return fmt.Errorf("read a stale pid file: %w", err)
	}
	_, rest, _ := bytes.Cut(text, []byte("\n"))
	text = append([]byte(strconv.Itoa(os.Getpid())+"\n"), rest...)
	if err := os.WriteFile(d.pidFile(), text, 0o600); err != nil {
		return fmt.Errorf("mark a pid file as stale: %w", err)
	}
	return nil
}

// alive reports whether pid is a process, ours to signal or not.
func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	defer p.Release()
	err = p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, os.ErrPermission)
}

// serves reports whether pid is a postmaster of this cluster: it works in the cluster's directory, or
// where the kernel does not tell, was called with it.
func (d directory) serves(ctx context.Context, pid int) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	if dir, err := os.Readlink(filepath.Join(proc, "cwd")); err == nil {
		return dir == d.cluster()
	}
	// Of a process that has ended but whom nobody has waited for, the command line is empty.
	if args, err := os.ReadFile(filepath.Join(proc, "cmdline")); err == nil {
		return bytes.Contains(args, []byte(d.cluster()))
	}
	out, err := run(ctx, exec.Command("ps", "-ww", "-o", "args=", "-p", strconv.Itoa(pid)))
	return err == nil && bytes.Contains(out, []byte(d.cluster()))
}
