package embedpg

import (
	"context"
	"fmt"
	"os"
	"os/exec"
)

// initialise makes the cluster. It appears under its name only when it is complete, so that one whose
// making was interrupted is made anew. With a primary it is a copy that follows that one.
func (d directory) initialise(ctx context.Context, bins binaries, acct *account, durable bool, primary *Server) error {
	if err := os.RemoveAll(d.unready()); err != nil {
		return fmt.Errorf("remove an unfinished cluster: %w", err)
	}
	if err := os.Mkdir(d.unready(), 0o700); err != nil {
		return fmt.Errorf("make the cluster's directory: %w", err)
	}
	if err := acct.own(d.unready()); err != nil {
		return fmt.Errorf("hand over the cluster's directory: %w", err)
	}
	cmd := exec.Command(bins.initdb(), "-D", d.unready(), "-U", superuser, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions")
	if primary != nil {
		var err error
		if cmd, err = primary.baseBackup(bins, d.unready()); err != nil {
			return err
		}
	}
	if !durable {
		cmd.Args = append(cmd.Args, "--no-sync")
	}
	cmd.Dir = d.unready()
	cmd.Env = childEnvironment()
	cmd.SysProcAttr = attributes(acct)
	if out, err := run(ctx, cmd); err != nil {
		return fmt.Errorf("make a cluster with %s: %w%s", cmd.Path, err, indented(out))
	}
	if err := os.Rename(d.unready(), d.cluster()); err != nil {
		return fmt.Errorf("name the finished cluster: %w", err)
	}
	if !durable {
		return nil
	}
	root, err := os.Open(d.root)
	if err != nil {
		return fmt.Errorf("sync the data directory: %w", err)
	}
	defer root.Close()
	if err := root.Sync(); err != nil {
		return fmt.Errorf("sync the data directory: %w", err)
	}
	return nil
}

// checkEnterable fails when the server's account cannot work in the data directory, which happens
// to root with a directory below a home that is closed to others.
func (d directory) checkEnterable(ctx context.Context, bins binaries, acct *account) error {
	if acct == nil {
		return nil
	}
	if _, err := probe(ctx, bins.postgres(), d.root, acct); err != nil {
		return fmt.Errorf("as root, PostgreSQL runs as user %s, which cannot enter the data directory %s (%w): "+
			"choose one that every user can reach, like a directory below /var/lib/kapsel", acct.name, d.root, err)
	}
	return nil
}
