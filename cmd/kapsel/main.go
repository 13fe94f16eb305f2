// Command kapsel is the whole service in one binary: server, command line and offline verifier.
//
// Exit codes: 0 success; 1 the command failed, or what was checked is not as it should be; 2 it was called wrongly.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// errUsage marks an error in how the command was called.
var errUsage = errors.New("usage")

func usageError(err error) error { return fmt.Errorf("%w%.0w", err, errUsage) }

func main() {
	ctx, stop := notified()
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// notified returns a context that the first signal to stop ends. From then on the second one ends the process at once.
func notified() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
		case <-ctx.Done():
		}
		signal.Stop(signals) // before the context ends: whoever sees that it has may send the second one
		cancel()
	}()
	return ctx, cancel
}

func run(ctx context.Context, args []string) int {
	root := newRoot()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "kapsel:", oneLine(err)+whatToDo(err))
	if isWrongCall(err) {
		return 2
	}
	return 1
}

// isWrongCall tells an error in how the command was called, exit code 2, from one in what it did.
func isWrongCall(err error) bool {
	databaseURL := (*pgconn.ParseConfigError)(nil)
	return errors.Is(err, errUsage) || errors.As(err, &databaseURL) ||
		connect.CodeOf(err) == connect.CodeInvalidArgument || // what the server refuses
		strings.HasPrefix(err.Error(), "unknown command") // cobra has no error value for it
}

// whatToDo is advice for an error that comes from far below the command, "" where its text is enough.
func whatToDo(err error) string {
	if dial := (*net.OpError)(nil); errors.As(err, &dial) && dial.Op == "dial" {
		return ": is a server running there, and is the address right?"
	}
	// As any web server's 404 is read, and its page.
	if connect.CodeOf(err) == connect.CodeUnimplemented || strings.Contains(err.Error(), "invalid content-type") {
		return ": is that a Kapsel server's address, without a path, and is the server not older than this command?"
	}
	return ""
}

// maxErrorRunes of an error are shown: it may repeat what was given.
const maxErrorRunes = 1000

// oneLine is the text of an error that may consist of several, fit for a terminal.
func oneLine(err error) string {
	text := []rune(printable(strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\t' }), "; ")))
	if len(text) > maxErrorRunes {
		return string(text[:maxErrorRunes]) + "…"
	}
	return string(text)
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "kapsel",
		Short: "Takes in webhooks, delivers each at least once, and proves every attempt",
		Long: `Kapsel takes in webhooks, never loses one, delivers each at least once, and proves every
delivery attempt in an append-only Merkle log that anyone can check without trusting Kapsel.

Each flag can be set in the environment too: --database-url is KAPSEL_DATABASE_URL, and so on (not those of one call's
request). The server and the API key come from --url and --api-key, else from a profile (kapsel profiles), else from kapsel dev.

Exit codes: 0 success; 1 the command failed, or what was checked is not as it should be; 2 it was called wrongly.`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return fromEnvironment(cmd.Flags())
		},
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError(fmt.Errorf("%w: see %s --help", err, cmd.CommandPath()))
	})
	root.AddCommand(
		newDev(), newServe(),
		newMigrate(), newFsck(), newState(), newHealth(),
		newKeys(), newTenants(),
		newSecrets(),
		newProfiles(),
		newSend(), newListen(), newTail(),
		newDeadLetters(), newReplay(),
		newSeal(),
		newProof(), newExport(), newVerify(), newMonitor(), newAudit(),
		newWitness(),
		newBench(),
		newVersion(),
	)
	addResources(root)
	addCompletions(root)
	sayWhichShell(root)
	return root
}

func noArgs(cmd *cobra.Command, args []string) error { return checkArgs(cmd, args, 0, 0) }

// oneArg takes just the argument that the command's usage names.
func oneArg(cmd *cobra.Command, args []string) error { return checkArgs(cmd, args, 1, 1) }

func optionalArg(cmd *cobra.Command, args []string) error { return checkArgs(cmd, args, 0, 1) }

func checkArgs(cmd *cobra.Command, args []string, least, most int) error {
	switch {
	case len(args) < least:
		return usageError(fmt.Errorf("say which: %s; see %s --help", cmd.UseLine(), cmd.CommandPath()))
	case len(args) > most:
		return usageError(fmt.Errorf("unexpected argument %q: see %s --help", printable(args[most]), cmd.CommandPath()))
	}
	return nil
}

// notFromEnvironment marks a flag that means something else than the variable of its name.
const notFromEnvironment = "not-from-environment"

// fromEnvironment sets each flag that was not given from KAPSEL_<NAME>.
func fromEnvironment(flags *pflag.FlagSet) error {
	var errs []error
	profile := flags.Lookup("profile")
	chosen := profile != nil && profile.Changed // then another server's address and key must not take its place
	flags.VisitAll(func(flag *pflag.Flag) {
		name := environmentName(flag.Name)
		_, only := flag.Annotations[notFromEnvironment]
		only = only || chosen && (flag.Name == "url" || flag.Name == "api-key")
		if value, found := os.LookupEnv(name); found && !only && !flag.Changed && value != "" {
			if err := flags.Set(flag.Name, value); err != nil {
				errs = append(errs, usageError(fmt.Errorf("%s: %w", name, err)))
			}
		}
	})
	return errors.Join(errs...)
}

func environmentName(flag string) string {
	name := []byte("KAPSEL_" + flag)
	for i, c := range name {
		switch {
		case c == '-':
			name[i] = '_'
		case c >= 'a' && c <= 'z':
			name[i] = c - 'a' + 'A'
		}
	}
	return string(name)
}
