package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/kapsel-dev/kapsel/internal/node"
	"github.com/kapsel-dev/kapsel/internal/secret"
)

func newSecretsWrap() *cobra.Command {
	var flags secretsFlags
	cmd := &cobra.Command{
		Use: "wrap", Short: "Encrypt the keyset's file under a key in a KMS", Args: noArgs,
		Long: `Replaces the keyset's file, which is in the clear, by one that only the key of --secrets-kms opens. The keys in it stay the
same, so no secret is encrypted anew. Nodes that run keep what they have; start each again with --secrets-kms. There is no way
back, and who loses the key in the KMS loses the secrets. What copies of the clear file there are still opens them: run
kapsel secrets rotate and prune afterwards, and remove the copies.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Getenv(keysetVariable) != "" {
				return usageError(errors.New("the keyset is in " + keysetVariable + ", where this command cannot change it: wrap a file that holds it"))
			}
			if flags.stateDir == "" || flags.kmsURL == "" {
				return usageError(errors.New("say which keyset and which key: set --state-dir and --secrets-kms"))
			}
			kms, err := node.SecretsKMS(cmd.Context(), flags.kmsURL)
			if err != nil {
				return err
			}
			path := filepath.Join(flags.stateDir, keysetFile)
			if err := secret.Wrap(path, kms); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is encrypted now: start each node with --secrets-kms\n", path)
			return nil
		},
	}
	flags.addKeyset(cmd)
	return cmd
}
