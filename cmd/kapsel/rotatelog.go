package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/store"
)

// theLogID is the one log that a service has.
const theLogID = 1

func newKeysNewLogKey() *cobra.Command {
	var stateDir string
	cmd := &cobra.Command{
		Use: "new-log-key", Short: "Make a key file that the log can be handed over to",
		Long: `Makes an Ed25519 key in a file log.<public half>.key of the state directory and prints its path. Nothing is signed
with it before kapsel keys rotate-log: copy it to the state directories of all nodes first, which need no restart.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if stateDir == "" {
				return usageError(errors.New("--state-dir is needed"))
			}
			temporary, err := os.MkdirTemp(stateDir, ".new-log-key-*")
			if err != nil {
				return fmt.Errorf("make key: %w", err)
			}
			defer os.RemoveAll(temporary)
			made := filepath.Join(temporary, "log.key")
			key, err := tlog.OpenKeyFile(made)
			if err != nil {
				return err
			}
			path := filepath.Join(stateDir, fmt.Sprintf("log.%x.key", []byte(key.Public()[:4])))
			if err := os.Link(made, path); err != nil { // unlike a rename, it replaces nothing
				return fmt.Errorf("make key: %w", err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), path)
			return err
		},
	}
	cmd.Flags().StringVar(&stateDir, "state-dir", "", "directory of the log's keys")
	return cmd
}

// rotateFlags are those of kapsel keys rotate-log.
type rotateFlags struct {
	url, stateDir, newKey string
	oldKeys               []string
	overlap               time.Duration
}

func newKeysRotateLog() *cobra.Command {
	var flags rotateFlags
	cmd := &cobra.Command{
		Use: "rotate-log", Short: "Hand the log over from its key to a new one",
		Long: `Records in the log that its key is followed by a new one, signed by both. From then on tree heads are signed by
both keys, until the overlap ends and the old key retires: verifiers and witnesses have so long to take the new one.

All nodes must have the new key before: its file in their state directories, or its URL in --log-key. A node without
it stops sealing. The log's name, its leaves and all old proofs stay as they are. This cannot be undone.`,
		Example: `  kapsel keys new-log-key --state-dir /var/lib/kapsel      # copy what it prints to all nodes
  kapsel keys rotate-log --state-dir /var/lib/kapsel --new-key /var/lib/kapsel/log.1a2b3c4d.key --overlap 720h`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return rotateLog(cmd, flags) },
	}
	f := cmd.Flags()
	f.StringVar(&flags.url, "database-url", "", "the database of the service, as a connection URI")
	f.StringVar(&flags.stateDir, "state-dir", "", "directory of the log's keys")
	f.StringArrayVar(&flags.oldKeys, "log-key", nil, "URL of the key in force, if it is not a file of the state directory")
	f.StringVar(&flags.newKey, "new-key", "", "the next key: a file, pkcs11:…, awskms:… or gcpkms:…")
	f.DurationVar(&flags.overlap, "overlap", 7*24*time.Hour, "for how long both keys sign; 0 if the old one was stolen")
	return cmd
}

func rotateLog(cmd *cobra.Command, flags rotateFlags) error {
	switch {
	case flags.url == "":
		return usageError(errors.New("database URL is missing: set --database-url or KAPSEL_DATABASE_URL"))
	case flags.newKey == "":
		return usageError(errors.New("--new-key is needed: kapsel keys new-log-key makes one"))
	case flags.stateDir == "" && len(flags.oldKeys) == 0:
		return usageError(errors.New("--state-dir or --log-key is needed: where is the key in force?"))
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), keysTimeout)
	defer cancel()
	next, err := tlog.OpenKey(ctx, flags.newKey)
	if err != nil {
		return err
	}
	keys, err := tlog.OpenExistingKeys(ctx, flags.stateDir, flags.oldKeys)
	if err != nil {
		return err
	}
	db, err := store.Open(ctx, flags.url)
	if err != nil {
		return err
	}
	defer db.Close()
	log, err := db.GetLog(ctx, db.Engine(), theLogID)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	index, err := tlog.Rotate(ctx, db.Engine(), theLogID, log.Origin, keys, next, flags.overlap)
	if err != nil {
		return err
	}
	text, err := next.VerifierKey(log.Origin)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "recorded as leaf %d; the old key retires in %v. Give the new key to verifiers and witnesses:\n", index, flags.overlap)
	_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}
