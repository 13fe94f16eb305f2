package main

import (
	"fmt"

	"github.com/spf13/cobra"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/protocli"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

const eventStatePrefix = "EVENT_STATE_"

// stateColours of a terminal, for what people look out for.
var stateColours = map[kapselv1.EventState]string{
	kapselv1.EventState_EVENT_STATE_DELIVERED:     "\x1b[32m",
	kapselv1.EventState_EVENT_STATE_DEAD_LETTERED: "\x1b[31m",
	kapselv1.EventState_EVENT_STATE_PENDING:       "\x1b[33m",
}

func newTail() *cobra.Command {
	var server clientFlags
	var output outputFlag
	var states []string
	var limit int
	filter := new(kapselv1.EventFilter)
	cmd := &cobra.Command{
		Use: "tail", Short: "Follow events: each as it is accepted, and whenever its state changes", Args: noArgs,
		Long: `Follows events from now on, until Ctrl-C: a line each time one is accepted or its state changes. Interruptions are
bridged: what happened meanwhile follows, and nothing comes twice.`,
		Example: `  kapsel tail
  kapsel tail --endpoint ep_… --state dead-lettered -o json
  kapsel tail --event-type 'invoice.*' --limit 10`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			printer, err := output.printer(cmd)
			if err != nil {
				return err
			}
			if limit < 0 {
				return usageError(fmt.Errorf("--limit must be 0 or more"))
			}
			for _, name := range states {
				state, err := parseEnum("state", eventStatePrefix, name, kapselv1.EventState_value)
				if err != nil {
					return err
				}
				filter.States = append(filter.States, kapselv1.EventState(state))
			}
			if err := checkRequest(cmd, &kapselv1.WatchEventsRequest{Filter: filter}); err != nil {
				return err
			}
			client, err := server.sdk()
			if err != nil {
				return err
			}
			options := kapsel.Stream{OnInterruption: interrupted(cmd)}
			told := 0
			for event, err := range client.WatchEvents(cmd.Context(), filter, options) {
				if err != nil {
					return fmt.Errorf("follow events: %w", err)
				}
				if err := printEvent(printer, event); err != nil {
					return fmt.Errorf("print event: %w", err)
				}
				if told++; told == limit {
					return nil
				}
			}
			return nil
		},
	}
	server.add(cmd.Flags())
	output.add(cmd)
	cmd.Flags().StringSliceVar(&filter.EndpointIds, "endpoint", nil, "only of these endpoints, ep_…")
	cmd.Flags().StringSliceVar(&filter.EventTypes, "event-type", nil, "only of these event types; * at the end stands for anything")
	cmd.Flags().StringSliceVar(&states, "state", nil, "only in these states: "+enumNames(eventStatePrefix, kapselv1.EventState_name))
	cmd.Flags().IntVar(&limit, "limit", 0, "end after so many lines; 0: never")
	return cmd
}

func printEvent(printer protocli.Printer, event *kapselv1.Event) error {
	if printer.Format != protocli.Table {
		return printer.Line(event, nil)
	}
	state := fmt.Sprintf("%-13s", enumName(eventStatePrefix, event.State.String()))
	if colour := stateColours[event.State]; printer.Bold && colour != "" {
		state = colour + state + "\x1b[0m"
	}
	_, err := fmt.Fprintf(printer.Out, "%s  %s  %s  %s  %d bytes\n", event.ReceivedAt.AsTime().Local().Format("15:04:05.000"), state, event.Id,
		printable(event.EventType), event.PayloadBytes)
	return err
}
