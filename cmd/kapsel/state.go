package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kapsel-dev/kapsel/internal/node"
)

func newState() *cobra.Command {
	cmd := &cobra.Command{Use: "state", Short: "Make or install the key files that all nodes of a service share", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError(errors.New("say what to do: kapsel state init, kapsel state install"))
		},
	}
	cmd.AddCommand(newStateInit(), newStateInstall())
	return cmd
}

func newStateInit() *cobra.Command {
	var dir, kms string
	cmd := &cobra.Command{
		Use: "init", Short: "Make the log's key and the keyset of secrets, where they are not there yet",
		Long: `Makes log.key and secrets.keyset in a directory, and leaves files alone that are there. A node does the same at its first
start; made beforehand, they can be put on every node. Keep a copy of both apart from the database.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return usageError(errors.New("state directory is missing: set --state-dir"))
			}
			paths, err := node.InitState(cmd.Context(), dir, kms)
			for _, path := range paths {
				fmt.Fprintln(cmd.OutOrStdout(), path)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "state-dir", "", "directory to make them in")
	cmd.Flags().StringVar(&kms, "secrets-kms", "", secretsKMSUsage)
	return cmd
}

func newStateInstall() *cobra.Command {
	var from, dir string
	var keysetOnly bool
	cmd := &cobra.Command{
		Use: "install", Short: "Copy the key files into a node's state directory, with the mode that they need",
		Long: `Copies log.key and secrets.keyset into a node's state directory with mode 0600, for platforms whose secret volumes cannot
give a file that mode. A keyset of secrets that has changed is replaced. Another log key than the one that is there is refused: a log
cannot change its key that way. Running it again changes nothing.

With --keyset-only no key of the log is copied: for nodes without the role seal, and where the log's key is in a module.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from == "" || dir == "" {
				return usageError(errors.New("say where from and where to: set --from and --state-dir"))
			}
			return node.InstallState(from, dir, keysetOnly)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "directory that holds the files")
	cmd.Flags().StringVar(&dir, "state-dir", "", "state directory of the node")
	cmd.Flags().BoolVar(&keysetOnly, "keyset-only", false, "copy secrets.keyset, and no key of the log")
	return cmd
}
