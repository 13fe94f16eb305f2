package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/kapsel-dev/kapsel/internal/durable"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/store"
)

// restartFlags are those of kapsel keys restart-log.
type restartFlags struct {
	url, stateDir, origin, newKey string
}

func newKeysRestartLog() *cobra.Command {
	var flags restartFlags
	cmd := &cobra.Command{
		Use: "restart-log", Short: "Go on with a new log, when the database was restored below what was signed",
		Long: `For a service whose nodes refuse to sign because their database was restored from a backup, when there is no newer
state to restore. The old log ends with its last signed head; what the database has goes on as a new log, with another
name and another key. It is refused as long as the old log can go on.

Stop all nodes before. What is known of the old log is written to a file log.given-up-….json of the state directory, and
the high-water mark is set aside: keep both, with the old key and a dump of the database, as evidence. Everyone who verifies
needs the new name and key. Proof packages of the old log stay valid under its old key.`,
		Example: `  kapsel keys new-log-key --state-dir /var/lib/kapsel
  kapsel keys restart-log --state-dir /var/lib/kapsel --new-key /var/lib/kapsel/log.1a2b3c4d.key --origin log.example.com/2`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return restartLog(cmd, flags) },
	}
	f := cmd.Flags()
	f.StringVar(&flags.url, "database-url", "", "the database of the service, as the role that migrates it")
	f.StringVar(&flags.stateDir, "state-dir", "", "state directory of a node that refuses to sign")
	f.StringVar(&flags.newKey, "new-key", "", "the new log's key: a file, pkcs11:…, awskms:… or gcpkms:…")
	f.StringVar(&flags.origin, "origin", "", "the new log's name: a URL without scheme, never used before")
	return cmd
}

func restartLog(cmd *cobra.Command, flags restartFlags) error {
	switch {
	case flags.url == "":
		return usageError(errors.New("database URL is missing: set --database-url or KAPSEL_DATABASE_URL"))
	case flags.stateDir == "" || flags.origin == "":
		return usageError(errors.New("--state-dir and --origin are needed"))
	case flags.newKey == "":
		return usageError(errors.New("--new-key is needed: kapsel keys new-log-key makes one"))
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), restartTimeout)
	defer cancel()
	key, err := tlog.OpenKey(ctx, flags.newKey)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, flags.url)
	if err != nil {
		return fmt.Errorf("connect to database: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	log, err := store.New().GetLog(ctx, conn, theLogID)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	mark, err := tlog.OpenHighWater(filepath.Join(flags.stateDir, "log.highwater"), log.Origin)
	if err != nil {
		return err
	}
	now := time.Now().UTC()
	file := filepath.Join(flags.stateDir, "log.given-up-"+now.Format("20060102T150405Z")+".json")
	restart := tlog.Restart{LogID: theLogID, Origin: flags.origin, Key: key, HighWater: mark, Keep: func(e tlog.Evidence) error {
		text, err := json.MarshalIndent(e, "", "  ")
		if err != nil {
			return err
		}
		return durable.Create(file, append(text, '\n'))
	}}
	if err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return restart.Run(ctx, tx) }); err != nil {
		return err
	}
	aside, err := mark.SetAside(now)
	if err != nil {
		return fmt.Errorf("the log has its new name, but %w: rename the file yourself", err)
	}
	text, err := key.VerifierKey(flags.origin)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s has ended. Keep %s and %s. On every other node that seals, rename log.highwater too and add the new key.\n"+
		"Give the new log's key to verifiers, monitors and witnesses:\n", log.Origin, file, aside)
	_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}

// restartTimeout bounds the whole; up to 100,000 leaves and a few hundred tiles are read.
const restartTimeout = 5 * time.Minute
