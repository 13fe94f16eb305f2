package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/spf13/cobra"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/protocli"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

// lastReports is how long what is under way at Ctrl-C may still take.
const lastReports = 10 * time.Second

func newListen() *cobra.Command {
	var server clientFlags
	var output outputFlag
	request := new(kapselv1.ListenRequest)
	cmd := &cobra.Command{
		Use: "listen", Short: "Receive live webhooks on this machine, and forward them to an app", Args: noArgs,
		Long: `Opens a session that gets a copy of each webhook of your endpoints, forwards it to an app on this machine, and reports
what the app answered. Each report is an attempt, with a leaf in the log, like any other. Other destinations get their
webhooks as ever.

The connection is made anew when it breaks. What was forwarded and not reported then is an attempt with outcome unknown,
and comes again; nothing is lost. After Ctrl-C the session can be resumed for 10 minutes with --session. Then it ends, and
what waits for it becomes dead letters.`,
		Example: `  kapsel listen --forward http://localhost:3000
  kapsel listen --forward http://localhost:3000/hooks --endpoint ep_… --event-type 'invoice.*'
  kapsel listen --forward http://localhost:3000 --session lsn_…`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if request.ForwardUrl == "" {
				return usageError(errors.New("say where to forward to: --forward http://localhost:3000"))
			}
			if u, err := url.Parse(request.ForwardUrl); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
				return usageError(fmt.Errorf("--forward %q is not the URL of an app, such as http://localhost:3000", printable(request.ForwardUrl)))
			}
			printer, err := output.printer(cmd)
			if err != nil {
				return err
			}
			if err := checkRequest(cmd, request); err != nil {
				return err
			}
			client, err := server.sdk()
			if err != nil {
				return err
			}
			request.DisplayName, _ = os.Hostname() // only for people
			request.DisplayName = "kapsel listen " + request.DisplayName[:min(len(request.DisplayName), 64)]
			l := &localListener{cmd: cmd, client: client, request: request, printer: printer}
			return l.run(cmd.Context())
		},
	}
	server.add(cmd.Flags())
	output.add(cmd)
	cmd.Flags().StringVar(&request.ForwardUrl, "forward", "", "URL of the app to forward to, such as http://localhost:3000/hooks")
	cmd.Flags().StringVar(&request.SessionId, "session", "", "session to resume, lsn_…")
	cmd.Flags().StringSliceVar(&request.EndpointIds, "endpoint", nil, "only of these endpoints, ep_… (default all)")
	cmd.Flags().StringSliceVar(&request.EventTypes, "event-type", nil, "only of these event types; * at the end stands for anything")
	cmd.Flags().Int32Var(&request.MaxInFlight, "max-in-flight", 10, "how many to forward at once, 1 to 100")
	return cmd
}

// localListener is the laptop's end of a session.
type localListener struct {
	cmd     *cobra.Command
	client  *kapsel.Client
	request *kapselv1.ListenRequest
	printer protocli.Printer

	underWay sync.WaitGroup
	printing sync.Mutex
}

func (l *localListener) run(ctx context.Context) error {
	stream, end := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx, until what is under way is reported
	defer end()
	stopped := context.AfterFunc(ctx, func() {
		done := make(chan struct{})
		go func() { l.underWay.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(lastReports):
		}
		end()
	})
	defer stopped()
	options := kapsel.ListenOptions{Stream: kapsel.Stream{OnInterruption: interrupted(l.cmd)}, OnSession: l.began}
	for incoming, err := range l.client.ListenDeliveries(stream, l.request, options) {
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		if ctx.Err() == nil {
			l.underWay.Go(func() { l.forward(stream, incoming) })
		}
	}
	l.underWay.Wait()
	if l.request.SessionId == "" { // it was never connected
		return nil
	}
	fmt.Fprintf(l.cmd.ErrOrStderr(), "resume within 10 minutes: kapsel listen --forward %s --session %s\n", l.request.ForwardUrl, l.request.SessionId)
	return nil
}

func (l *localListener) began(session *kapselv1.ListenSession) {
	if session.Secret != "" {
		fmt.Fprintf(l.cmd.ErrOrStderr(), "listening; webhooks are signed with %s; --session %s resumes\n", session.Secret, session.Id)
	}
	l.request.SessionId = session.Id
}

// forward makes one attempt and reports it.
func (l *localListener) forward(ctx context.Context, incoming *kapsel.Incoming) {
	delivery := incoming.Delivery
	report, err := incoming.Forward(ctx, nil, l.request.ForwardUrl)
	l.printing.Lock()
	defer l.printing.Unlock()
	if err != nil {
		fmt.Fprintf(l.cmd.ErrOrStderr(), "%s: not reported, it comes again: %s\n", delivery.AttemptId, oneLine(err))
	}
	if l.printer.Format != protocli.Table {
		l.printer.Line(report, nil)
		return
	}
	result, colour := "", "\x1b[31m"
	if answer := report.GetAnswer(); answer != nil {
		result = fmt.Sprintf("%d %s", answer.StatusCode, http.StatusText(int(answer.StatusCode)))
		if answer.StatusCode >= 200 && answer.StatusCode <= 299 {
			colour = "\x1b[32m"
		}
	} else {
		result = enumName(failurePrefix, report.GetFailure().Failure.String()) + ": " + printable(report.GetFailure().Message)
	}
	if l.printer.Bold {
		result = colour + result + "\x1b[0m"
	}
	fmt.Fprintf(l.printer.Out, "%s  %s  %s  attempt %d  %s  %v\n", time.Now().Format("15:04:05.000"), delivery.Event.GetId(),
		printable(delivery.Event.GetEventType()), delivery.Number, result, report.Duration.AsDuration().Round(time.Millisecond/10))
}

// interrupted tells of an interruption of a stream.
func interrupted(cmd *cobra.Command) func(error, time.Duration) {
	return func(err error, wait time.Duration) {
		fmt.Fprintf(cmd.ErrOrStderr(), "interrupted, connecting again in %v: %s\n", wait.Round(time.Millisecond), oneLine(err))
	}
}
