package embedpg

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// oldestMajor is the oldest PostgreSQL that Kapsel supports.
const oldestMajor = 15

// probeTimeout bounds `postgres --version`, which takes a few milliseconds.
const probeTimeout = 10 * time.Second

// packagedPlaces are where packages put the server's binaries outside of PATH.
var packagedPlaces = []string{
	"/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
	"/usr/pgsql-*/bin",                                   // the PostgreSQL project's RPMs
	"/usr/lib/postgresql*/bin",                           // openSUSE
	"/usr/libexec/postgresql*",                           // Alpine
	"/usr/lib64/postgresql-*/bin",                        // Gentoo
	"/usr/local/pgsql/bin",                               // built from source
	"/opt/homebrew/opt/postgresql@*/bin",                 // Homebrew, Apple silicon
	"/usr/local/opt/postgresql@*/bin",                    // Homebrew, Intel
	"/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",    // Homebrew, Linux
	"/opt/local/lib/postgresql*/bin",                     // MacPorts
	"/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
}

// binaries is a directory with initdb and postgres of one version.
type binaries struct {
	dir   string
	major int
}

func (b binaries) postgres() string { return filepath.Join(b.dir, "postgres") }
func (b binaries) initdb() string   { return filepath.Join(b.dir, "initdb") }

// locate returns binaries that acct can run, of the given major version unless it is 0.
func locate(ctx context.Context, explicit string, major int, acct *account, logger *slog.Logger) (binaries, error) {
	if explicit == "" {
		explicit = os.Getenv("KAPSEL_POSTGRES_BIN")
	}
	if explicit != "" {
		b, err := inspect(ctx, explicit, major, acct)
		if err != nil {
			return binaries{}, fmt.Errorf("use the PostgreSQL binaries that were asked for: %w", err)
		}
		return b, nil
	}
	b, err := installed(ctx, major, acct)
	if err == nil {
		return b, nil
	}
	if major != 0 && major != npmMajor {
		return binaries{}, notFound(major, err)
	}
	dir, npmErr := fetchNPM(ctx, acct, logger)
	if npmErr == nil {
		b, npmErr = inspect(ctx, dir, major, acct)
	}
	if npmErr != nil {
		return binaries{}, notFound(major, errors.Join(err, npmErr))
	}
	return b, nil
}

// notFound tells what to do about missing binaries.
func notFound(major int, why error) error {
	want := fmt.Sprintf("PostgreSQL %d or newer", oldestMajor)
	if major != 0 {
		want = fmt.Sprintf("PostgreSQL %d, which made the data directory,", major)
	}
	return fmt.Errorf("%s was not found: install it (on Debian or Ubuntu the package postgresql), name the directory of its "+
		"binaries in KAPSEL_POSTGRES_BIN, or set KAPSEL_DATABASE_URL to a running server. What was tried:\n%w", want, why)
}

// installed returns what PATH has, else the newest of packagedPlaces.
func installed(ctx context.Context, major int, acct *account) (binaries, error) {
	var tried []error
	for _, dir := range pathDirectories(ctx) {
		b, err := inspect(ctx, dir, major, acct)
		if err == nil {
			return b, nil
		}
		tried = append(tried, err)
	}
	var found []binaries
	for _, pattern := range packagedPlaces {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return binaries{}, fmt.Errorf("look for %s: %w", pattern, err)
		}
		for _, dir := range dirs {
			b, err := inspect(ctx, dir, major, acct)
			if err != nil {
				tried = append(tried, err)
				continue
			}
			found = append(found, b)
		}
	}
	if len(found) == 0 {
		tried = append(tried, errors.New("PATH and the usual places of packages have no other"))
		return binaries{}, errors.Join(tried...)
	}
	return slices.MaxFunc(found, func(a, b binaries) int { return cmp.Compare(a.major, b.major) }), nil
}

// pathDirectories returns the directories of the binaries that PATH leads to. A script named postgres
// may start the server as a child, whose process id we would not know, so only what pg_config
// names counts then.
func pathDirectories(ctx context.Context) []string {
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil && !isScript(path) {
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	if path, err := exec.LookPath("pg_config"); err == nil {
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		if out, err := run(ctx, exec.Command(path, "--bindir")); err == nil {
			dir := strings.TrimSpace(string(out))
			if _, err := os.Stat(filepath.Join(dir, "postgres")); err == nil && !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

func isScript(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 2)
	n, _ := f.Read(head)
	return bytes.Equal(head[:n], []byte("#!"))
}

// inspect checks that dir has both binaries, new enough (or of the version wanted), and that acct can
// run them.
func inspect(ctx context.Context, dir string, major int, acct *account) (binaries, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return binaries{}, fmt.Errorf("resolve %s: %w", dir, err)
	}
	b := binaries{dir: dir}
	for _, path := range []string{b.postgres(), b.initdb()} {
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return binaries{}, fmt.Errorf("%s has no %s", dir, filepath.Base(path))
		}
		if err != nil {
			return binaries{}, fmt.Errorf("look at %s: %w", path, err)
		}
		if !info.Mode().IsRegular() {
			return binaries{}, fmt.Errorf("%s is not a program", path)
		}
	}
	if b.major, err = probe(ctx, b.postgres(), "/", acct); err != nil {
		return binaries{}, err
	}
	if major != 0 && b.major != major {
		return binaries{}, fmt.Errorf("%s is PostgreSQL %d, but the data directory was made by %d", dir, b.major, major)
	}
	if b.major < oldestMajor {
		return binaries{}, fmt.Errorf("%s is PostgreSQL %d, older than %d", dir, b.major, oldestMajor)
	}
	return b, nil
}

var versionPattern = regexp.MustCompile(`^postgres \([^)]*\) (\d+)`)

// probe runs `postgres --version` in dir as acct and returns the major version.
func probe(ctx context.Context, postgres, dir string, acct *account) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.Command(postgres, "--version")
	cmd.Dir = dir
	cmd.Env = childEnvironment()
	cmd.SysProcAttr = attributes(acct)
	out, err := run(ctx, cmd)
	if err != nil {
		return 0, fmt.Errorf("run %s: %w%s", postgres, err, indented(out))
	}
	match := versionPattern.FindSubmatch(out)
	if match == nil {
		return 0, fmt.Errorf("%s calls itself %.60q, which is no PostgreSQL version", postgres, out)
	}
	return strconv.Atoi(string(match[1]))
}
