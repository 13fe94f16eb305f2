package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
)

// replayPoll is the pause between two looks at a replay that is waited for.
const replayPoll = 500 * time.Millisecond

func newReplay() *cobra.Command {
	var flags clientFlags
	var selection deadLetterFlags
	var output outputFlag
	var all, dryRun, wait, cancel bool
	var rate int32
	cmd := &cobra.Command{
		Use:   "replay [REPLAY_ID]",
		Short: "Deliver dead letters again, or look at a replay",
		Long: `Delivers all dead letters that meet the flags again, at a pace, as a job of the server that survives restarts.
Dead letters that were replayed already are not part of it. With the id of a replay (rpl_…) it shows that one.

With --wait it follows the replay to its end; Ctrl-C stops the following, not the replay (--cancel does).
Exit code 0: begun, or with --wait completed. 1: cancelled, or it could not be done.`,
		Example: `  kapsel replay --destination dst_… --since 24h --dry-run
  kapsel replay --destination dst_… --since 24h --rate 200 --wait
  kapsel replay rpl_… --cancel`,
		Args: optionalArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			ask, err := replayQuestion(args, &selection, all, dryRun, cancel, rate)
			if err != nil {
				return err
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
			replay, err := ask(cmd.Context(), c)
			if err != nil {
				return err
			}
			if wait && replay.State == kapselv1.ReplayState_REPLAY_STATE_RUNNING {
				if replay, err = followReplay(cmd.Context(), c, replay, cmd.ErrOrStderr()); err != nil {
					return err
				}
			}
			if err := output.print(printer, replay, replayLine(replay)+"\n"); err != nil {
				return fmt.Errorf("print replay: %w", err)
			}
			if wait && replay.State == kapselv1.ReplayState_REPLAY_STATE_CANCELLED && !cancel {
				return errors.New("the replay was cancelled")
			}
			return nil
		},
	}
	flags.add(cmd.Flags())
	selection.add(cmd.Flags())
	cmd.Flags().BoolVar(&all, "all", false, "all dead letters of the tenant: needed when nothing else selects")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only count, and change nothing")
	cmd.Flags().Int32Var(&rate, "rate", 0, "deliveries to make a second, at most 10000 (default 100)")
	cmd.Flags().BoolVar(&wait, "wait", false, "follow it to its end, with a line of progress on a terminal")
	cmd.Flags().BoolVar(&cancel, "cancel", false, "stop the replay of that id; what it has made stays")
	output.add(cmd)
	return cmd
}

// replayQuestion is what to ask the server for.
func replayQuestion(args []string, selection *deadLetterFlags, all, dryRun, cancel bool, rate int32) (func(context.Context, client) (*kapselv1.Replay, error), error) {
	filter, err := selection.filter(time.Now())
	if err != nil {
		return nil, err
	}
	switch {
	case len(args) == 1 && (!isEmpty(filter) || all || dryRun || rate != 0):
		return nil, usageError(errors.New("a replay that is there already keeps its filter and its rate: give an id or these flags"))
	case len(args) == 0 && cancel:
		return nil, usageError(errors.New("--cancel needs the id of a replay (rpl_…)"))
	case len(args) == 0 && isEmpty(filter) && !all && !dryRun:
		return nil, usageError(errors.New("nothing is selected: filter by --destination, --since and others, or give --all"))
	case len(args) == 0 && all && !isEmpty(filter):
		return nil, usageError(errors.New("--all and a filter contradict each other"))
	case len(args) == 0:
		request := &kapselv1.ReplayDeadLettersRequest{Filter: filter, DryRun: dryRun, RatePerSecond: rate}
		return func(ctx context.Context, c client) (*kapselv1.Replay, error) {
			response, err := c.deliveries.ReplayDeadLetters(ctx, request)
			if err != nil {
				return nil, fmt.Errorf("replay dead letters: %w", err)
			}
			return response.Replay, nil
		}, nil
	}
	if _, err := id.Replay.Parse(args[0]); err != nil {
		return nil, usageError(fmt.Errorf("%q is not the id of a replay (rpl_…)", args[0]))
	}
	return func(ctx context.Context, c client) (*kapselv1.Replay, error) {
		if cancel {
			response, err := c.deliveries.CancelReplay(ctx, &kapselv1.CancelReplayRequest{ReplayId: args[0]})
			if err != nil {
				return nil, fmt.Errorf("cancel replay: %w", err)
			}
			return response.Replay, nil
		}
		return getReplay(ctx, c, args[0])
	}, nil
}

func getReplay(ctx context.Context, c client, replayID string) (*kapselv1.Replay, error) {
	response, err := c.deliveries.GetReplay(ctx, &kapselv1.GetReplayRequest{ReplayId: replayID})
	if err != nil {
		return nil, fmt.Errorf("get replay: %w", err)
	}
	return response.Replay, nil
}

// followReplay asks for a replay until it has ended. On a terminal it shows how far it is.
func followReplay(ctx context.Context, c client, replay *kapselv1.Replay, progress io.Writer) (_ *kapselv1.Replay, err error) {
	line := newProgress(progress, "dead letters")
	defer line.end()
	for replay.State == kapselv1.ReplayState_REPLAY_STATE_RUNNING {
		line.show(replay.Replayed+replay.Skipped, replay.Matched)
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("replay %s goes on without being followed: %w", replay.Id, ctx.Err())
		case <-time.After(replayPoll):
		}
		if replay, err = getReplay(ctx, c, replay.Id); err != nil {
			return nil, err
		}
	}
	return replay, nil
}

// isTerminal reports whether people watch what is written.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != "dumb"
}

// replayLine says in one line where a replay stands.
func replayLine(replay *kapselv1.Replay) string {
	if replay.Id == "" {
		return fmt.Sprintf("%d dead letters match", replay.Matched)
	}
	line := fmt.Sprintf("%s %s: %d of %d replayed", replay.Id, enumName("REPLAY_STATE_", replay.State.String()), replay.Replayed, replay.Matched)
	if replay.Skipped > 0 {
		line += fmt.Sprintf(", %d skipped (payload or destination gone)", replay.Skipped)
	}
	if left := replay.Matched - replay.Replayed - replay.Skipped; left > 0 && replay.State == kapselv1.ReplayState_REPLAY_STATE_RUNNING && replay.RatePerSecond > 0 {
		line += fmt.Sprintf(", about %v left", (time.Duration(left) * time.Second / time.Duration(replay.RatePerSecond)).Round(time.Second))
	}
	if replay.Error != "" {
		line += "; " + replay.Error
	}
	return line
}
