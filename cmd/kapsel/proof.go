package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// proofPoll is the pause between two questions for an event that has no attempt yet.
const proofPoll = 500 * time.Millisecond

// The forms in which a proof is written.
const (
	formatPackage   = "package"
	formatTlogProof = "tlog-proof"
	formatArchive   = "archive"
)

func newProof() *cobra.Command {
	var flags clientFlags
	var output, format string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "proof ID",
		Short: "Fetch the proof of an attempt, a delivery or an event",
		Long: `Fetches the proof package of an attempt (att_…), or of the last attempt of a delivery (dlv_…) or an event
(evt_…), once it is under a signed tree head. With --format archive it is all records of the delivery or event, dead
letters included, in one .tar.gz; with --format tlog-proof a C2SP tlog-proof file, which holds no more than the leaf's
bytes, its place and the signed head. Check the file offline with kapsel verify. kapsel export fetches a span of time.`,
		Example: `  kapsel proof att_01m87j6n8meqb9a0bhc8fhn7x4 -o proof.json
  kapsel proof evt_01m87j6n89fktb8y67hs9n6z5n --format archive -o event.tar.gz`,
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := proofSubject(args[0])
			if err != nil {
				return usageError(err)
			}
			if format != formatPackage && format != formatTlogProof && format != formatArchive {
				return usageError(fmt.Errorf("--format is %q: want package, tlog-proof or archive", format))
			}
			if output == "" {
				return usageError(errors.New("--output is empty: name a file, or - for standard output"))
			}
			d, err := flags.demo()
			if err != nil {
				return err
			}
			packages, err := fetchProof(cmd.Context(), newClient(d.URL, d.APIKey), request, wait)
			if err != nil {
				return err
			}
			if format == formatArchive {
				return writeArchive(cmd, output, time.Time{}, time.Time{}, func(add func([]byte) error) error {
					for _, p := range packages {
						if err := add(p.Json); err != nil {
							return err
						}
					}
					return nil
				})
			}
			return writeProof(cmd, packages, format, output)
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "-", "file to write; - is standard output")
	cmd.Flags().StringVar(&format, "format", formatPackage, "package (JSON), tlog-proof (C2SP) or archive (.tar.gz of all records)")
	cmd.Flags().DurationVar(&wait, "wait", time.Minute, "how long to wait for the attempt and its seal")
	return cmd
}

func proofSubject(text string) (*kapselv1.GetProofPackageRequest, error) {
	request := &kapselv1.GetProofPackageRequest{}
	if _, err := id.Attempt.Parse(text); err == nil {
		request.Subject = &kapselv1.GetProofPackageRequest_AttemptId{AttemptId: text}
	} else if _, err := id.Delivery.Parse(text); err == nil {
		request.Subject = &kapselv1.GetProofPackageRequest_DeliveryId{DeliveryId: text}
	} else if _, err := id.Event.Parse(text); err == nil {
		request.Subject = &kapselv1.GetProofPackageRequest_EventId{EventId: text}
	} else {
		return nil, fmt.Errorf("%q is neither the id of an attempt (att_…), nor of a delivery (dlv_…), nor of an event (evt_…)", text)
	}
	return request, nil
}

// writeProof writes the last of the packages, and says which others there are.
func writeProof(cmd *cobra.Command, packages []*kapselv1.ProofPackage, format, output string) error {
	last := packages[len(packages)-1]
	document := last.Json
	if format == formatTlogProof {
		p, err := verify.Parse(document)
		if err != nil {
			return fmt.Errorf("the server's package: %w", err)
		}
		if document, err = p.TlogProof(); err != nil {
			return err
		}
	}
	if output == "-" {
		_, err := cmd.OutOrStdout().Write(document)
		return err
	}
	err := writeWhole(output, 0o644, func(file io.Writer) error {
		_, err := file.Write(document)
		return err
	})
	if err != nil {
		return fmt.Errorf("write proof: %w", err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: proof of %s, leaf %d\n", output, last.AttemptId, last.LeafIndex)
	if n := len(packages) - 1; n > 0 {
		var others []string
		for _, p := range packages[:n] {
			others = append(others, p.AttemptId)
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "earlier attempts have proofs of their own (--format archive has all): %s\n", strings.Join(others, " "))
	}
	return nil
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
		if code := connect.CodeOf(err); err != nil && code != connect.CodeFailedPrecondition && kapsel.Reason(err) != "LEAF_NOT_FOUND" { // which says: not yet
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
