package embedpg

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// fastStopWait bounds a shutdown with a checkpoint.
	fastStopWait = 20 * time.Second

	// immediateStopWait bounds a shutdown without one. The postmaster itself kills children that
	// are not gone after 5 seconds.
	immediateStopWait = 10 * time.Second
)

// process is a child of ours that the kernel takes down with us, where it can.
type process struct {
	cmd    *exec.Cmd
	asked  atomic.Bool   // we asked it to end
	exited chan struct{} // closed when it has ended
	result error         // how it ended; valid once exited is closed
}

// spawn starts cmd. The parent death signal is sent when the thread that forked ends, not the
// process, so one goroutine holds that thread until the child is gone.
func spawn(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		// A nil result would read as no failure where an end was not asked for.
		if p.result = cmd.Wait(); p.result == nil {
			p.result = fmt.Errorf("%s", cmd.ProcessState)
		}
		close(p.exited)
	}()
	return p, <-started
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop sends first and waits for the end; what does not end in time is ended more roughly, which
// is an error unless it was gone before.
func (p *process) stop(ctx context.Context, first os.Signal) error {
	p.asked.Store(true)
	for _, step := range []struct {
		ctx    context.Context
		signal os.Signal
		wait   time.Duration
	}{
		{ctx, first, fastStopWait},
		{context.WithoutCancel(ctx), syscall.SIGQUIT, immediateStopWait},
	} {
		// It fails only when the process is gone, which the wait finds out.
		_ = p.cmd.Process.Signal(step.signal)
		if !p.wait(step.ctx, step.wait) {
			continue
		}
		if step.signal == first {
			return nil
		}
		return fmt.Errorf("PostgreSQL did not stop in time, and was stopped without a checkpoint")
	}
	_ = p.cmd.Process.Kill()
	<-p.exited
	return fmt.Errorf("PostgreSQL did not stop in time, and was killed")
}

// wait reports whether the process ended within d and ctx.
func (p *process) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.exited:
		return true
	case <-ctx.Done():
	case <-timer.C:
	}
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// run runs cmd to its end like cmd.CombinedOutput, but as a child that goes down with us.
func run(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	var out boundedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = time.Second
	p, err := spawn(cmd)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		_ = p.cmd.Process.Kill()
		<-p.exited
		return out.kept, context.Cause(ctx)
	}
	if !cmd.ProcessState.Success() {
		return out.kept, p.result
	}
	return out.kept, nil
}

// boundedBuffer keeps the first 8 KiB of a child's output and drops the rest.
type boundedBuffer struct{ kept []byte }

func (b *boundedBuffer) Write(p []byte) (int, error) {
	room := 8<<10 - len(b.kept)
	b.kept = append(b.kept, p[:min(room, len(p))]...)
	return len(p), nil
}

// indented returns a child's output as something to put behind an error.
func indented(out []byte) string {
	text := strings.TrimSpace(string(out))
	if text == "" {
		return ""
	}
	return "\n\t" + strings.ReplaceAll(text, "\n", "\n\t")
}
