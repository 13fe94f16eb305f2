package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// sealTimeout is longer than the server waits for the node that leads.
const sealTimeout = 40 * time.Second

func newSeal() *cobra.Command {
	var flags clientFlags
	var output outputFlag
	cmd := &cobra.Command{
		Use: "seal", Short: "Have a tree head signed now over all that is recorded",
		Long: `Has a tree head signed and published over every leaf that is recorded now, without waiting for the sealer's
time, and prints its checkpoint. Any node takes the request; the one that leads seals. Needs an API key with the
scope OPERATOR.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			printer, err := output.printer(cmd)
			if err != nil {
				return err
			}
			d, err := flags.demo()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), sealTimeout)
			defer cancel()
			response, err := newClient(d.URL, d.APIKey).attestation.SealLog(ctx, &kapselv1.SealLogRequest{})
			if err != nil {
				return fmt.Errorf("seal the log: %w", err)
			}
			return output.print(printer, response, response.TreeHead.Note)
		},
	}
	flags.add(cmd.Flags())
	output.add(cmd)
	return cmd
}
