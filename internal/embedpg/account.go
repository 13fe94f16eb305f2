package embedpg

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// account is the user that the server runs as when we are root. Nil means that it runs as we do;
// the methods do nothing then.
type account struct {
	name     string
	uid, gid int
}

// serverAccount returns the account to run the server with: postgres, else nobody, for root only.
func serverAccount() (*account, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return nil, fmt.Errorf("read the user id of %s: %w", name, err)
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return nil, fmt.Errorf("read the group id of %s: %w", name, err)
		}
		return &account{name: name, uid: uid, gid: gid}, nil
	}
	return nil, fmt.Errorf("PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as: " +
		"add one, run as an ordinary user, or set KAPSEL_DATABASE_URL")
}

// own gives path to the account.
func (a *account) own(path string) error {
	if a == nil {
		return nil
	}
	return os.Chown(path, a.uid, a.gid)
}

// makeAll makes dir and what is missing above it, for us alone, or for the account to pass through
// whatever our umask is.
func (a *account) makeAll(dir string) error {
	if a == nil {
		return os.MkdirAll(dir, 0o700)
	}
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	if err := a.makeAll(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o711); err != nil {
		return err
	}
	return a.letThrough(dir)
}

// letThrough opens a directory of ours for passing through to what the account owns below it.
func (a *account) letThrough(dir string) error {
	if a == nil {
		return nil
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return fmt.Errorf("let user %s into %s: %w", a.name, dir, err)
	}
	return nil
}
