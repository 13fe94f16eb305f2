package main

import (
	"cmp"
	"fmt"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/protocli"
)

// deadLetterFlags select dead letters: those that meet every flag that is set.
type deadLetterFlags struct {
	since, until                                           string
	endpoints, destinations, reasons, failures, eventTypes []string
}

func (f *deadLetterFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.since, "since", "", "given up at or after: a time (2006-01-02T15:04:05Z) or an age (24h)")
	flags.StringVar(&f.until, "until", "", "given up before: a time or an age")
	flags.StringSliceVar(&f.endpoints, "endpoint", nil, "of these endpoints, ep_…")
	flags.StringSliceVar(&f.destinations, "destination", nil, "to these destinations, dst_…")
	flags.StringSliceVar(&f.reasons, "reason", nil, "given up for: "+enumNames(reasonPrefix, leafv1.DeadLetterReason_name))
	flags.StringSliceVar(&f.failures, "failure", nil, "last attempt failed by: "+enumNames(failurePrefix, leafv1.Failure_name))
	flags.StringSliceVar(&f.eventTypes, "event-type", nil, "of these event types; * at the end stands for anything")
}

// filter is what the flags select. Relative times are before now.
func (f *deadLetterFlags) filter(now time.Time) (*kapselv1.DeadLetterFilter, error) {
	filter := &kapselv1.DeadLetterFilter{EndpointIds: f.endpoints, DestinationIds: f.destinations, EventTypes: f.eventTypes}
	since, err := parseMoment("since", f.since, now)
	if err != nil {
		return nil, err
	}
	until, err := parseMoment("until", f.until, now)
	if err != nil {
		return nil, err
	}
	if since != nil || until != nil {
		filter.Dead = &kapselv1.TimeRange{StartTime: since, EndTime: until}
	}
	for _, name := range f.reasons {
		reason, err := parseEnum("reason", reasonPrefix, name, leafv1.DeadLetterReason_value)
		if err != nil {
			return nil, err
		}
		filter.Reasons = append(filter.Reasons, leafv1.DeadLetterReason(reason))
	}
	for _, name := range f.failures {
		failure, err := parseEnum("failure", failurePrefix, name, leafv1.Failure_value)
		if err != nil {
			return nil, err
		}
		filter.Failures = append(filter.Failures, leafv1.Failure(failure))
	}
	return filter, nil
}

func isEmpty(filter *kapselv1.DeadLetterFilter) bool { return proto.Size(filter) == 0 }

// parseMoment reads a time of RFC 3339 or an age; nil for "".
func parseMoment(flag, text string, now time.Time) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	if age, err := time.ParseDuration(text); err == nil && age >= 0 {
		return timestamppb.New(now.Add(-age)), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return nil, usageError(fmt.Errorf("--%s %q is neither a time such as 2006-01-02T15:04:05Z nor an age such as 24h", flag, text))
	}
	return timestamppb.New(at), nil
}

const (
	reasonPrefix  = "DEAD_LETTER_REASON_"
	failurePrefix = "FAILURE_"
)

// parseEnum reads the name that enumName gives.
func parseEnum(flag, prefix, name string, values map[string]int32) (int32, error) {
	value, found := values[prefix+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))]
	if !found || value == 0 {
		return 0, usageError(fmt.Errorf("--%s: there is no %q", flag, name))
	}
	return value, nil
}

// enumName is a value of the contract as people write it: FAILURE_WORKER_LOST is worker-lost.
func enumName(prefix, name string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, prefix), "_", "-"))
}

// enumNames lists all values but the zero one, in the contract's order.
func enumNames(prefix string, names map[int32]string) string {
	var list []string
	for value := int32(1); len(list) < len(names)-1; value++ {
		if name, found := names[value]; found {
			list = append(list, enumName(prefix, name))
		}
	}
	return strings.Join(list, ", ")
}

func newDeadLetters() *cobra.Command {
	var flags clientFlags
	var selection deadLetterFlags
	var limit int
	var asJSON bool
	var output outputFlag
	cmd := &cobra.Command{
		Use:   "deadletters",
		Short: "List what was given up, the newest first",
		Long: `Lists dead letters, the newest first, with the reason and the last attempt's status. kapsel replay
delivers them again.`,
		Example: `  kapsel deadletters --destination dst_… --since 24h
  kapsel deadletters --failure timeout,connect --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, err := selection.filter(time.Now())
			if err != nil {
				return err
			}
			if limit < 0 {
				return usageError(fmt.Errorf("--limit must be 0 or more"))
			}
			printer, err := output.printer(cmd)
			if err != nil {
				return err
			}
			d, err := flags.demo()
			if err != nil {
				return err
			}
			c := newClient(d.URL, d.APIKey)
			if printer.Format != protocli.Table {
				return listRPC(cmd, c, "DeliveryService/ListDeadLetters", &kapselv1.ListDeadLettersRequest{Filter: filter}, limit, printer)
			}
			return listDeadLetters(cmd, c, filter, limit, asJSON)
		},
	}
	flags.add(cmd.Flags())
	selection.add(cmd.Flags())
	output.add(cmd)
	cmd.Flags().IntVar(&limit, "limit", 50, "how many to list; 0: all")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON object a line")
	return cmd
}

func listDeadLetters(cmd *cobra.Command, c client, filter *kapselv1.DeadLetterFilter, limit int, asJSON bool) error {
	out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	if !asJSON {
		fmt.Fprintln(out, "GIVEN UP\tDELIVERY\tDESTINATION\tREASON\tATTEMPTS\tSTATUS\tEVENT TYPE\tREPLAYED BY")
	}
	request := &kapselv1.ListDeadLettersRequest{Filter: filter}
	for left := cmp.Or(limit, math.MaxInt); left > 0; {
		request.PageSize = int32(min(left, 1000))
		response, err := c.deliveries.ListDeadLetters(cmd.Context(), request)
		if err != nil {
			return fmt.Errorf("list dead letters: %w", err)
		}
		for _, letter := range response.DeadLetters {
			if asJSON {
				line, err := protojson.Marshal(letter)
				if err != nil {
					return fmt.Errorf("encode dead letter: %w", err)
				}
				fmt.Fprintf(out, "%s\n", line)
				continue
			}
			status := "-"
			if attempt := letter.LastAttempt; attempt.GetStatusCode() != 0 {
				status = fmt.Sprint(attempt.StatusCode)
			} else if attempt.GetFailure() != leafv1.Failure_FAILURE_UNSPECIFIED {
				status = enumName(failurePrefix, attempt.Failure.String())
			}
			fmt.Fprintf(out, "%s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\n", letter.DeadTime.AsTime().Format(time.RFC3339), letter.DeliveryId,
				cmp.Or(letter.DestinationId, "-"), enumName(reasonPrefix, letter.Reason.String()), letter.Attempts, status,
				cmp.Or(printable(letter.EventType), "-"), cmp.Or(letter.ReplayedBy, "-"))
		}
		left -= len(response.DeadLetters)
		if request.PageToken = response.NextPageToken; request.PageToken == "" {
			break
		}
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("print dead letters: %w", err)
	}
	return nil
}

// printable is text that came from a source, without what would steer a terminal or break a table.
func printable(text string) string { return protocli.Printable(text) }
