package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/kapsel-dev/kapsel/internal/node"
	"github.com/kapsel-dev/kapsel/internal/reseal"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/store"
)

// keysetVariable has the keyset that encrypts secrets, as the base64 of its JSON, where no file is wanted. It is no flag:
// the arguments of a process are for all to see.
const keysetVariable = "KAPSEL_SECRETS_KEYSET"

// keysetFile is where it is otherwise, in the state directory.
const keysetFile = "secrets.keyset"

// secretsKMSUsage is the help on --secrets-kms.
const secretsKMSUsage = "URL of a key in a KMS that the keyset is encrypted under: awskms:… or gcpkms:… (default in the clear)"

// maxPasses bounds how often a rotation looks for what nodes have sealed under the old key meanwhile.
const maxPasses = 10

type secretsFlags struct {
	databaseURL, stateDir, kmsURL string

	kms tink.AEAD // what open has opened at kmsURL
}

func newSecrets() *cobra.Command {
	cmd := &cobra.Command{Use: "secrets", Short: "Rotate and wrap the keys that encrypt secrets in the database", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError(errors.New("say what to do: kapsel secrets status, rotate, prune or wrap"))
		},
	}
	cmd.AddCommand(newSecretsStatus(), newSecretsRotate(), newSecretsPrune(), newSecretsWrap())
	return cmd
}

func (f *secretsFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.databaseURL, "database-url", "", "PostgreSQL 15 or later, as a connection URI")
	f.addKeyset(cmd)
}

func (f *secretsFlags) addKeyset(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.stateDir, "state-dir", "", "directory of the keyset, unless "+keysetVariable+" has it")
	cmd.Flags().StringVar(&f.kmsURL, "secrets-kms", "", secretsKMSUsage)
}

// open opens the database and the keyset, whose file must be there: one that was made now would open nothing. path is "" for
// a keyset of the environment.
func (f *secretsFlags) open(ctx context.Context) (db *store.DB, keys *secret.Keyring, path string, err error) {
	if f.databaseURL == "" {
		return nil, nil, "", usageError(errors.New("database URL is missing: set --database-url or KAPSEL_DATABASE_URL"))
	}
	if f.kms, err = node.SecretsKMS(ctx, f.kmsURL); err != nil {
		return nil, nil, "", err
	}
	if text := os.Getenv(keysetVariable); text != "" {
		keys, err = secret.Decode(text, f.kms)
	} else {
		if f.stateDir == "" {
			return nil, nil, "", usageError(errors.New("no keyset: set --state-dir or " + keysetVariable))
		}
		path = filepath.Join(f.stateDir, keysetFile)
		if _, err = os.Stat(path); err == nil {
			keys, err = secret.Open(path, f.kms)
		}
	}
	if err != nil {
		return nil, nil, "", err
	}
	db, err = store.Open(ctx, f.databaseURL)
	return db, keys, path, err
}

func newSecretsStatus() *cobra.Command {
	var flags secretsFlags
	cmd := &cobra.Command{
		Use: "status", Short: "Say which keys there are, and how many secrets each has encrypted", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			db, keys, _, err := flags.open(cmd.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			return printSecretsStatus(cmd.Context(), cmd.OutOrStdout(), db, keys)
		},
	}
	flags.add(cmd)
	return cmd
}

func printSecretsStatus(ctx context.Context, out io.Writer, db *store.DB, keys *secret.Keyring) error {
	counts, err := sealedCounts(ctx, db)
	if err != nil {
		return err
	}
	info := keys.Info()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tSTATE\tSECRETS")
	for _, id := range info.Keys {
		state := "opens"
		if id == info.Primary {
			state = "opens and seals"
		}
		fmt.Fprintf(w, "%d\t%s\t%d\n", id, state, counts[id])
		delete(counts, id)
	}
	missing := int64(0)
	for id, n := range counts {
		fmt.Fprintf(w, "%d\tnot in this keyset\t%d\n", id, n)
		missing += n
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if missing > 0 {
		return fmt.Errorf("%d secrets cannot be read with this keyset: restore the one that they were encrypted with, or set them anew", missing)
	}
	return nil
}

// sealedCounts is how many secrets each key has sealed; key 0 is of what no key can have.
func sealedCounts(ctx context.Context, db *store.DB) (map[uint32]int64, error) {
	rows, err := db.SealedUnder(ctx, db.Engine())
	if err != nil {
		return nil, fmt.Errorf("count secrets: %w", err)
	}
	counts := make(map[uint32]int64)
	for _, row := range rows {
		id, _ := secret.KeyID(append(make([]byte, 4), row.Prefix...))
		counts[id] += row.Secrets
	}
	return counts, nil
}

func newSecretsRotate() *cobra.Command {
	var flags secretsFlags
	var prepare bool
	var batch int
	cmd := &cobra.Command{
		Use: "rotate", Short: "Encrypt all secrets under a new key, while nodes run", Args: noArgs,
		Long: `Adds a key to the keyset, makes it the one that encrypts, and encrypts all secrets anew, in batches. Nodes that
share the state directory take the new keyset over within seconds, and read what either key has encrypted. The old key stays
in the keyset until kapsel secrets prune.

Where nodes have copies of the keyset, go in steps: rotate --prepare, copy the file to every node, rotate, copy it again.
Where they have it in ` + keysetVariable + `, do the same with a file that holds it, in a shell without that variable: instead of
copying, set the variable to the file's base64 and restart the nodes.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if batch < 1 || batch > 10000 {
				return usageError(fmt.Errorf("--batch %d: want 1 to 10000", batch))
			}
			ctx, out := cmd.Context(), cmd.OutOrStdout()
			db, keys, path, err := flags.open(ctx)
			if err != nil {
				return err
			}
			defer db.Close()
			if path != "" {
				id, err := secret.Prepare(path, flags.kms)
				if err != nil {
					return err
				}
				if prepare {
					fmt.Fprintf(out, "key %d is added, and encrypts nothing yet: bring %s to every node, then run rotate\n", id, path)
					return nil
				}
				if err := waitForNodes(ctx); err != nil { // they read what the first of them will seal under it
					return err
				}
				if _, err := secret.Promote(path, flags.kms); err != nil {
					return err
				}
				if keys, err = secret.Open(path, flags.kms); err != nil {
					return err
				}
			} else if prepare {
				return usageError(errors.New("--prepare: the keyset is in " + keysetVariable + ", where this command cannot add to it"))
			}
			resealed, err := resealAll(ctx, out, db, keys, batch, path != "")
			if err == nil && resealed == 0 && path == "" {
				return fmt.Errorf("nothing is rotated: this command cannot add a key to %s; rotate a file that holds the keyset, without the variable, "+
					"and set it to the file's base64 (see kapsel secrets rotate --help)", keysetVariable)
			}
			return err
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&prepare, "prepare", false, "only add the key, for nodes with copies of the keyset")
	cmd.Flags().IntVar(&batch, "batch", reseal.DefaultBatch, "how many secrets are encrypted at once")
	return cmd
}

func waitForNodes(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(2 * secret.ReloadInterval):
		return nil
	}
}

// resealAll goes over the tables until nothing is under another key: a node that has not seen the new one yet may still seal
// under the old. It returns how many it has encrypted anew.
func resealAll(ctx context.Context, out io.Writer, db *store.DB, keys *secret.Keyring, batch int, wait bool) (resealed int64, err error) {
	total := reseal.Result{}
	for range maxPasses {
		result, err := reseal.Run(ctx, db, keys, batch)
		if err != nil {
			return 0, err
		}
		total.Resealed, total.Unreadable = total.Resealed+result.Resealed, result.Unreadable
		if result.Resealed == 0 {
			break
		}
		if wait {
			if err := waitForNodes(ctx); err != nil {
				return 0, err
			}
		}
	}
	fmt.Fprintf(out, "%d secrets are encrypted under key %d now\n", total.Resealed, keys.Primary())
	if total.Unreadable > 0 {
		return total.Resealed, fmt.Errorf("%d secrets could not be read and are as they were: see kapsel secrets status", total.Unreadable)
	}
	return total.Resealed, nil
}

func newSecretsPrune() *cobra.Command {
	var flags secretsFlags
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove the keys under which nothing is encrypted any more", Args: noArgs,
		Long: `Removes from the keyset's file the keys that have encrypted no secret in the database. A backup of the database from
before the rotation needs them: keep a copy of the old keyset as long as such backups.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			db, _, path, err := flags.open(cmd.Context())
			if err != nil {
				return err
			}
			defer db.Close()
			if path == "" {
				return usageError(errors.New("the keyset is in " + keysetVariable + ", where this command cannot change it"))
			}
			counts, err := sealedCounts(cmd.Context(), db)
			if err != nil {
				return err
			}
			var inUse []uint32
			for id := range counts {
				inUse = append(inUse, id)
			}
			removed, err := secret.Prune(path, flags.kms, inUse)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%d keys removed\n", len(removed))
			return nil
		},
	}
	flags.add(cmd)
	return cmd
}
