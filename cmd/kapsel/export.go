package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// A stream that breaks off is tried so often without any progress in between, after waits of up to so long.
const (
	exportTries = 6
	exportWait  = 2 * time.Second
)

func newExport() *cobra.Command {
	var flags clientFlags
	var output, from, to string
	request := &kapselv1.ExportProofPackagesRequest{}
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Fetch the proofs of all records of a span of time, as one archive",
		Long: `Fetches the proof packages of all attempts and dead letters that were recorded in a span of time, all for one
signed tree head, and writes them as one .tar.gz: proofs/<leaf index>.proof.json each, and a manifest. It streams, so the
span may be of any length; a stream that breaks off is resumed. Records whose bytes were erased are not in it. Check the
file offline with kapsel verify.`,
		Example: `  kapsel export --from 2026-01-01 --to 2026-04-01 -o first-quarter.tar.gz
  kapsel verify first-quarter.tar.gz --key @log.pub`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			start, err := readMoment("--from", from)
			if err != nil {
				return usageError(err)
			}
			end, err := readMoment("--to", to)
			if err != nil {
				return usageError(err)
			}
			request.Recorded = &kapselv1.TimeRange{}
			if !start.IsZero() {
				request.Recorded.StartTime = timestamppb.New(start)
			}
			if !end.IsZero() {
				request.Recorded.EndTime = timestamppb.New(end)
			}
			if err := checkRequest(cmd, request); err != nil {
				return err
			}
			if output == "" {
				return usageError(errors.New("--output is empty: name a file, or - for standard output"))
			}
			client, err := flags.sdk()
			if err != nil {
				return err
			}
			return writeArchive(cmd, output, start, end, func(add func([]byte) error) error {
				line, packages := newProgress(cmd.ErrOrStderr(), "proofs"), int64(0)
				defer line.end()
				return exportAll(cmd.Context(), client, request, func(p *kapselv1.ProofPackage) error {
					packages++
					line.show(packages, 0)
					return add(p.Json)
				})
			})
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().StringVarP(&output, "output", "o", "-", "file to write, .tar.gz; - is standard output")
	cmd.Flags().StringVar(&from, "from", "", "first moment, RFC 3339 or a date (UTC); empty: since ever")
	cmd.Flags().StringVar(&to, "to", "", "first moment after it; empty: until now")
	cmd.Flags().StringVar(&request.EndpointId, "endpoint", "", "only of this endpoint, ep_…")
	cmd.Flags().StringVar(&request.DestinationId, "destination", "", "only to this destination, dst_…")
	return cmd
}

func readMoment(flag, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s is %q: want a time such as 2026-03-04T05:06:07Z, or a date such as 2026-03-04", flag, text)
}

// exportAll reads a whole export, over broken streams.
func exportAll(ctx context.Context, client *kapsel.Client, request *kapselv1.ExportProofPackagesRequest, take func(*kapselv1.ProofPackage) error) error {
	options := kapsel.Stream{Retry: kapsel.Retry{MaxAttempts: exportTries, InitialWait: exportWait, MaxWait: exportWait}}
	for p, err := range client.ExportProofPackages(ctx, request, options) {
		if err == nil {
			err = take(p)
		}
		if err != nil {
			return fmt.Errorf("export: %w", err)
		}
	}
	return nil
}

// writeArchive writes an archive whole, or leaves nothing: a file of its name is never one that was cut short.
func writeArchive(cmd *cobra.Command, output string, from, to time.Time, fill func(add func([]byte) error) error) error {
	if output == "-" {
		archive := verify.NewArchiveWriter(cmd.OutOrStdout(), from, to)
		if err := fill(archive.Add); err != nil {
			return err
		}
		return archive.Close()
	}
	var packages int64
	err := writeWhole(output, 0o644, func(file io.Writer) error {
		archive := verify.NewArchiveWriter(file, from, to)
		if err := fill(archive.Add); err != nil {
			return err
		}
		packages = archive.Packages()
		return archive.Close()
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: %d proofs\n", output, packages)
	return nil
}
