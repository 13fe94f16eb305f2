package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
)

// proofPoll is the pause between two questions for an event that has no attempt yet.
const proofPoll = 500 * time.Millisecond

func newProof() *cobra.Command {
	var flags clientFlags
	var output string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "proof ID",
		Short: "Fetch the proof package of an attempt, or of an event's last one",
		Long: `Fetches the proof package of an attempt (att_…), or of the last attempt of an event (evt_…), once it
is under a signed tree head. Check the file offline with kapsel verify.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &kapselv1.GetProofPackageRequest{}
			if _, err := id.Attempt.Parse(args[0]); err == nil {
				request.Subject = &kapselv1.GetProofPackageRequest_AttemptId{AttemptId: args[0]}
			} else if _, err := id.Event.Parse(args[0]); err == nil {
				request.Subject = &kapselv1.GetProofPackageRequest_EventId{EventId: args[0]}
			} else {
				return usageError(fmt.Errorf("%q is neither an attempt's id (att_…) nor an event's (evt_…)", args[0]))
			}
			d, err := flags.demo()
			if err != nil {
				return err
			}
			packages, err := fetchProof(cmd.Context(), newClient(d.URL, d.APIKey), request, wait)
			if err != nil {
				return err
			}
			last := packages[len(packages)-1]
			if output == "-" {
				_, err = cmd.OutOrStdout().Write(last.Json)
				return err
			}
			if err := os.WriteFile(output, last.Json, 0o644); err != nil {
				return fmt.Errorf("write proof: %w", err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s: proof of %s, leaf %d\n", output, last.AttemptId, last.LeafIndex)
			if n := len(packages) - 1; n > 0 {
				var others []string
				for _, p := range packages[:n] {
					others = append(others, p.AttemptId)
				}
				fmt.Fprintf(cmd.ErrOrStderr(), "earlier attempts have proofs of their own: %s\n", strings.Join(others, " "))
			}
			return nil
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "-", "file to write; - is standard output")
	cmd.Flags().DurationVar(&wait, "wait", time.Minute, "how long to wait for the attempt and its seal")
	return cmd
}

// fetchProof asks until there is a sealed attempt, or wait is over.
func fetchProof(ctx context.Context, c client, request *kapselv1.GetProofPackageRequest, wait time.Duration) ([]*kapselv1.ProofPackage, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+proofPoll)
	defer cancel()
	deadline := time.Now().Add(wait)
	for {
		request.Wait = durationpb.New(min(max(0, time.Until(deadline)), time.Minute))
		response, err := c.attestation.GetProofPackage(ctx, request)
		if err == nil && len(response.Packages) > 0 {
			return response.Packages, nil
		}
		if code := connect.CodeOf(err); err != nil && code != connect.CodeFailedPrecondition {
			return nil, fmt.Errorf("get proof: %w", err)
		}
		if time.Now().After(deadline) {
			if err == nil {
				err = errors.New("it has no attempt yet")
			}
			return nil, fmt.Errorf("no proof after %v: %w", wait, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no proof after %v: %w", wait, ctx.Err())
		case <-time.After(proofPoll):
		}
	}
}
