package embedpg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// StandbyName is the application_name by which standbys of this package follow their primary: what synchronous_standby_names
// of the primary is to say, once they run, for a COMMIT to wait for one.
const StandbyName = "kapsel_standby"

// ErrNoBaseBackup reports that the PostgreSQL that was found has no pg_basebackup: the one that npm fetches has none.
var ErrNoBaseBackup = errors.New("there is no pg_basebackup beside postgres: install PostgreSQL with its client programs")

// baseBackup is the command that copies this running server into dir, as a standby of it.
func (s *Server) baseBackup(bins binaries, dir string) (*exec.Cmd, error) {
	program := filepath.Join(filepath.Dir(bins.postgres()), "pg_basebackup")
	if _, err := os.Stat(program); err != nil {
		return nil, ErrNoBaseBackup
	}
	source := fmt.Sprintf("host='%s' port=%d user=%s application_name=%s", s.sockets, port, superuser, StandbyName)
	return exec.Command(program, "--pgdata", dir, "--wal-method=stream", "--checkpoint=fast", "--write-recovery-conf", "--dbname", source), nil
}

// Impersonate makes cmd, which has not been started, run as the account that the server runs as: the one that may read and
// write its files.
func (s *Server) Impersonate(cmd *exec.Cmd) { cmd.SysProcAttr = attributes(s.acct) }

// Kill ends the server as a crash does, kill -9 of its first process, and waits until it has ended for good. Stop is
// still to be called, to give back the data directory.
func (s *Server) Kill(ctx context.Context) error {
	s.mu.Lock()
	proc := s.proc
	s.mu.Unlock()
	if err := proc.cmd.Process.Kill(); err != nil {
		return fmt.Errorf("kill PostgreSQL: %w", err)
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("PostgreSQL was killed and has not ended: %w", ctx.Err())
	}
}
