package embedpg

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxSocketPath is what fits into sockaddr_un everywhere, without its terminating zero: macOS has
// room for 104 bytes, Linux for 108.
const maxSocketPath = 103

// directory is a data directory that we hold the lock of.
//
//	lock              held while a Kapsel uses the directory; holds its process id
//	cluster           PostgreSQL's files
//	cluster.new       a cluster that initdb has not finished
//	postgres.log(.1)  the server's log
//	run               the socket
type directory struct {
	root string // absolute, without symbolic links
	held *os.File
}

func (d directory) cluster() string { return filepath.Join(d.root, "cluster") }
func (d directory) unready() string { return filepath.Join(d.root, "cluster.new") }
func (d directory) log() string     { return filepath.Join(d.root, "postgres.log") }
func (d directory) oldLog() string  { return filepath.Join(d.root, "postgres.log.1") }
func (d directory) run() string     { return filepath.Join(d.root, "run") }
func (d directory) lock() string    { return filepath.Join(d.root, "lock") }

// openDirectory makes root if need be, checks that it is ours to use, and locks it.
func openDirectory(root string, acct *account) (directory, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return directory{}, fmt.Errorf("resolve the data directory: %w", err)
	}
	if err := acct.makeAll(root); err != nil {
		return directory{}, fmt.Errorf("make the data directory: %w", err)
	}
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return directory{}, fmt.Errorf("resolve the data directory: %w", err)
	}
	d := directory{root: root}
	if err := d.refuseForeign(); err != nil {
		return directory{}, err
	}
	if d.held, err = os.OpenFile(d.lock(), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return directory{}, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := tryLock(d.held); err != nil {
		holder, _ := os.ReadFile(d.lock())
		d.held.Close()
		return directory{}, fmt.Errorf("%w: %s is held by process %s: stop that one, or choose another directory",
			ErrInUse, root, strings.TrimSpace(string(holder)))
	}
	if err = d.held.Truncate(0); err == nil {
		_, err = d.held.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return directory{}, errors.Join(fmt.Errorf("prepare the data directory: %w", err), d.close())
	}
	return d, nil
}

// close gives the lock back.
func (d directory) close() error {
	if err := d.held.Close(); err != nil {
		return fmt.Errorf("unlock the data directory: %w", err)
	}
	return nil
}

// refuseForeign fails when the directory holds anything that this package did not put there.
func (d directory) refuseForeign() error {
	entries, err := os.ReadDir(d.root)
	if err != nil {
		return fmt.Errorf("read the data directory: %w", err)
	}
	for _, entry := range entries {
		switch filepath.Join(d.root, entry.Name()) {
		case d.cluster(), d.unready(), d.log(), d.oldLog(), d.run(), d.lock():
		default:
			return fmt.Errorf("data directory %s holds %q, which is not Kapsel's: choose an empty or a new directory", d.root, entry.Name())
		}
	}
	return nil
}

// major returns the major version of PostgreSQL that made the cluster, 0 when there is none yet.
func (d directory) major() (int, error) {
	text, err := os.ReadFile(filepath.Join(d.cluster(), "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(d.cluster()); err == nil {
			return 0, fmt.Errorf("%s is not a PostgreSQL cluster (it has no PG_VERSION): choose another data directory", d.cluster())
		}
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the cluster's version: %w", err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || major <= 0 {
		return 0, fmt.Errorf("%s is not a PostgreSQL cluster: its PG_VERSION reads %.20q", d.cluster(), text)
	}
	return major, nil
}

// makeSocketDirectory returns an empty directory for the socket that only the server's account may
// enter, below the data directory unless a socket cannot be there. No server may be running: what an
// earlier one left there goes, since PostgreSQL believes a stale lock file whose process id is in
// use again.
func (d directory) makeSocketDirectory(acct *account) (string, error) {
	dir := d.run()
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("empty the socket directory: %w", err)
	}
	var err error
	if fitsSocket(dir) {
		err = os.Mkdir(dir, 0o700)
	} else {
		dir, err = makeShortTemp()
	}
	if err != nil {
		return "", fmt.Errorf("make the socket directory: %w", err)
	}
	if err := acct.own(dir); err != nil {
		return "", fmt.Errorf("hand over the socket directory: %w", err)
	}
	return dir, nil
}

// makeShortTemp makes a directory that a socket can be in, in /tmp when the system's temporary
// directory will not do.
func makeShortTemp() (string, error) {
	for _, parent := range []string{os.TempDir(), "/tmp"} {
		dir, err := os.MkdirTemp(parent, "kapsel-pg-")
		if err != nil {
			return "", err
		}
		if fitsSocket(dir) {
			return dir, nil
		}
		if err := os.Remove(dir); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("%s and /tmp will not do for a socket", os.TempDir())
}

// fitsSocket reports whether a socket in dir can be made and be named in a connection string, in
// which a comma separates several hosts.
func fitsSocket(dir string) bool {
	return len(socketPath(dir)) <= maxSocketPath && !strings.Contains(dir, ",")
}

func socketPath(dir string) string {
	return filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(port))
}
