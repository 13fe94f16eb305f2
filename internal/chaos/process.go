package chaos

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// maxOutputBytes is how much of a process's output is kept: its end, which tells why a test failed.
const maxOutputBytes = 32 << 10

// Process is the program, running.
type Process struct {
	cmd    *exec.Cmd
	stdout tail
	stderr tail
	said   sayings
	done   chan struct{}
}

// Launch starts the program. It gets none of the KAPSEL_ variables of this process, and ends with the test at the latest;
// when the test has failed, the end of its output is printed.
func Launch(t testing.TB, args ...string) *Process {
	t.Helper()
	return launch(t, nil, args...)
}

// launch is Launch with variables of the environment.
func launch(t testing.TB, variables []string, args ...string) *Process {
	t.Helper()
	return launchProgram(t, Binary(t), variables, args...)
}

// launchProgram is launch of another build of the program.
func launchProgram(t testing.TB, path string, variables []string, args ...string) *Process {
	t.Helper()
	p := &Process{cmd: exec.Command(path, args...), done: make(chan struct{})}
	p.cmd.Env = append(environment(), variables...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, io.MultiWriter(&p.stderr, &p.said)
	p.cmd.SysProcAttr = endWithParent()
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start kapsel %s: %v", args[0], err)
	}
	go func() {
		p.cmd.Wait() // what it ended with is in cmd.ProcessState
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("the end of what kapsel %s (process %d) wrote:\n%s", strings.Join(args, " "), p.cmd.Process.Pid, p.stderr.text())
		}
	})
	return p
}

// Run runs the program to its end and returns its exit code and what it wrote.
func Run(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(Binary(t), args...)
	cmd.Env = environment()
	cmd.SysProcAttr = endWithParent()
	var out, diagnostics strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &diagnostics
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatalf("run kapsel %s: %v", args[0], err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), diagnostics.String()
}

func environment() []string {
	var kept []string
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "KAPSEL_") || strings.HasPrefix(variable, "KAPSEL_POSTGRES_BIN=") {
			kept = append(kept, variable)
		}
	}
	return kept
}

// Kill ends the process as a crash does, and returns when it is gone.
func (p *Process) Kill() {
	p.cmd.Process.Kill() // fails only when it has ended
	<-p.done
}

// Stop asks the process to stop, by SIGTERM, and kills it if that takes longer than patience.
func (p *Process) Stop(patience time.Duration) {
	p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	select {
	case <-p.done:
	case <-time.After(patience):
		p.Kill()
	}
}

// Terminate asks the process to stop, by SIGTERM, and returns its exit code.
func (p *Process) Terminate(t testing.TB, patience time.Duration) int {
	t.Helper()
	return p.Signal(t, syscall.SIGTERM, patience)
}

// Signal sends a signal that is to end the process, and returns its exit code.
func (p *Process) Signal(t testing.TB, signal os.Signal, patience time.Duration) int {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Fatalf("send %v: %v", signal, err)
	}
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Fatalf("the process still runs %v after %v", patience, signal)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Ended reports whether the process has ended.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

func (o *tail) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept = append(o.kept, p...)
	if extra := len(o.kept) - maxOutputBytes; extra > 0 {
		o.kept = append(o.kept[:0], o.kept[extra:]...)
	}
	return len(p), nil
}

func (o *tail) text() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.kept)
}

// Ports of servers that are restarted are taken from below the ranges out of which systems pick ports for outgoing
// connections. Otherwise a source that tries to reconnect could be given the server's own port and talk to itself.
const firstPort, portCount = 20_000, 10_000

// FreeAddress returns an address of this machine that nobody listens on, and that stays the same over restarts.
func FreeAddress(t testing.TB, r *Random) string {
	t.Helper()
	for range 100 {
		listener, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: firstPort + r.IntN(portCount)})
		if err == nil {
			defer listener.Close()
			return listener.Addr().String()
		}
	}
	t.Fatal("no free port found in 100 tries")
	return ""
}
