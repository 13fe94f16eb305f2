package embedpg

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

const (
	// readyPoll is how often the status in postmaster.pid is read while the server starts.
	readyPoll = 5 * time.Millisecond

	// orphanWait bounds how long a start is tried again because backends of a killed postmaster
	// still hold the cluster's shared memory. They notice its death at their next wait.
	orphanWait  = 10 * time.Second
	orphanPause = 100 * time.Millisecond

	// logTailBytes of the server's log go into the error of a failed start.
	logTailBytes = 2 << 10

	// maxLogBytes is the size at which the log is put aside before a start; one older log is kept.
	maxLogBytes = 16 << 20
)

// launch starts the server and waits until it accepts connections.
func (s *Server) launch(ctx context.Context) error {
	for deadline := time.Now().Add(orphanWait); ; {
		err := s.launchOnce(ctx)
		if err == nil || time.Now().After(deadline) || !strings.Contains(err.Error(), "shared memory block") {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(orphanPause):
		}
	}
}

func (s *Server) launchOnce(ctx context.Context) error {
	log, from, err := s.dir.openLog()
	if err != nil {
		return err
	}
	defer log.Close()
	_, crashed := s.dir.postmaster()

	args := []string{"-D", s.dir.cluster(), "-p", strconv.Itoa(port), "-k", quoteListEntry(s.sockets)}
	cmd := exec.Command(s.bins.postgres(), append(args, s.args...)...)
	cmd.Dir = s.dir.cluster()
	cmd.Env = childEnvironment()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = attributes(s.acct)
	began := time.Now()
	proc, err := spawn(cmd)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.bins.postgres(), err)
	}
	if err := s.awaitReady(ctx, proc); err != nil {
		// The reason was given already; how the stop went adds nothing to it.
		_ = proc.stop(context.WithoutCancel(ctx), os.Interrupt)
		return fmt.Errorf("start PostgreSQL on %s: %w%s", s.dir.root, err, s.dir.logTail(from))
	}
	s.mu.Lock()
	s.proc = proc
	s.mu.Unlock()
	go s.watch(proc, from)
	s.logger.Info("PostgreSQL started", slog.Int("pid", proc.pid()), slog.Int("version", s.bins.major),
		slog.String("binaries", s.bins.dir), slog.String("data_dir", s.dir.root),
		slog.Bool("recovered", crashed), slog.Duration("took", time.Since(began)))
	return nil
}

// awaitReady returns when the server has written "ready" into its pid file, the sign that
// pg_ctl waits for too.
func (s *Server) awaitReady(ctx context.Context, proc *process) error {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		if pm, ok := s.dir.postmaster(); ok && pm.pid == proc.pid() && pm.status == "ready" {
			return nil
		}
		select {
		case <-proc.exited:
			return fmt.Errorf("it ended at once: %w", proc.result)
		case <-ctx.Done():
			return fmt.Errorf("wait until it accepts connections: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// watch ends the server when its process ends unasked.
func (s *Server) watch(proc *process, logFrom int64) {
	<-proc.exited
	if proc.asked.Load() {
		return
	}
	s.end(fmt.Errorf("PostgreSQL died: %w%s", proc.result, s.dir.logTail(logFrom)))
	s.logger.Error("PostgreSQL died", slog.Int("pid", proc.pid()), slog.Any("error", proc.result))
}

// openLog opens the server's log for appending and returns the offset at which new lines begin.
func (d directory) openLog() (*os.File, int64, error) {
	if info, err := os.Stat(d.log()); err == nil && info.Size() > maxLogBytes {
		if err := os.Rename(d.log(), d.oldLog()); err != nil {
			return nil, 0, fmt.Errorf("put the old log aside: %w", err)
		}
	}
	f, err := os.OpenFile(d.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, 0, fmt.Errorf("open PostgreSQL's log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, 0, fmt.Errorf("read the size of PostgreSQL's log: %w", err)
	}
	return f, info.Size(), nil
}

// logTail returns the end of what was logged since offset from, to be put behind an error.
func (d directory) logTail(from int64) string {
	f, err := os.Open(d.log())
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil {
		from = max(from, info.Size()-logTailBytes)
	}
	text, err := io.ReadAll(io.NewSectionReader(f, from, logTailBytes))
	if err != nil || len(text) == 0 {
		return ""
	}
	return "; the end of " + d.log() + ":\n" + strings.TrimSpace(string(text))
}

// quoteListEntry quotes one entry of a comma separated setting.
func quoteListEntry(s string) string {
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

// childEnvironment is ours without what steers PostgreSQL's programs, in the locale that every system has.
func childEnvironment() []string {
	env := []string{"LC_ALL=C"}
	for _, entry := range os.Environ() {
		if !strings.HasPrefix(entry, "PG") && !strings.HasPrefix(entry, "LC_") {
			env = append(env, entry)
		}
	}
	return env
}
