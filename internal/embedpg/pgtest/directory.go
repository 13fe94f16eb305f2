package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kapsel-dev/kapsel/internal/embedpg"
)

const (
	// directoryPrefix marks our directories, for removal after a run that was killed.
	directoryPrefix = "kapsel-pgtest-"

	// abandonedAfter is how old a directory without an owner has to be: a new one is without, until its
	// cluster is being started.
	abandonedAfter = time.Minute

	// minMemoryBytes is what has to be free in memory for a cluster to go there.
	minMemoryBytes = 512 << 20
)

// makeDirectory makes a data directory below parent, and removes those that killed runs left there.
func makeDirectory(ctx context.Context, parent string) (string, error) {
	if err := removeAbandoned(ctx, parent); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(parent, directoryPrefix)
	if err != nil {
		return "", fmt.Errorf("make a data directory for tests: %w", err)
	}
	// As root the server runs as another user, who has to pass through.
	if os.Geteuid() == 0 {
		if err := os.Chmod(dir, 0o711); err != nil {
			return "", fmt.Errorf("open a data directory for tests: %w", err)
		}
	}
	return dir, nil
}

// removeAbandoned removes the directories below parent that no process owns.
func removeAbandoned(ctx context.Context, parent string) error {
	dirs, err := filepath.Glob(filepath.Join(parent, directoryPrefix+"*"))
	if err != nil {
		return fmt.Errorf("look for abandoned data directories: %w", err)
	}
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < abandonedAfter {
			continue
		}
		err = embedpg.Discard(ctx, dir)
		// Another process may own it, or remove it just now, and other users have theirs here.
		if err != nil && !errors.Is(err, embedpg.ErrInUse) && !errors.Is(err, os.ErrPermission) && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove an abandoned data directory: %w", err)
		}
	}
	return nil
}

// diskDirectory returns a directory on a real disk: of the two for temporary files, the one that
// survives a reboot.
func diskDirectory() string {
	if info, err := os.Stat("/var/tmp"); err == nil && info.IsDir() {
		return "/var/tmp"
	}
	return os.TempDir()
}
