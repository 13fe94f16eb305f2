package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kapsel-dev/kapsel/sdk/go/logclient"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// logFlags say which log is looked at, and what is compared with it.
type logFlags struct {
	keys                []string
	databaseURL, apiKey string
}

func (f *logFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.keys, "key", nil, "the log's verifier key, or @FILE with one a line; may be repeated. Required")
	cmd.Flags().StringVar(&f.databaseURL, "database-url", "", "PostgreSQL connection URI: an audit compares the leaves' bytes too")
	cmd.Flags().StringVar(&f.apiKey, "api-key", "", "a tenant's API key, better in KAPSEL_API_KEY: an audit verifies all of its proof packages too")
	cmd.Flags().Lookup("api-key").Annotations = map[string][]string{notFromEnvironment: nil} // but see client
}

func (f *logFlags) client(address string) (logclient.Client, error) {
	if err := checkURL("URL", address); err != nil {
		return logclient.Client{}, err
	}
	// A key of the environment is for the server of the environment, and not for any log that is looked at.
	if server := os.Getenv("KAPSEL_URL"); f.apiKey == "" && (server == "" || hostOf(server) == hostOf(address)) {
		f.apiKey = os.Getenv("KAPSEL_API_KEY")
	}
	keys, err := readKeys(f.keys)
	if err != nil {
		return logclient.Client{}, err
	}
	if len(keys) == 0 {
		return logclient.Client{}, usageError(errors.New("--key is missing: the log's verifier key, from elsewhere than the log"))
	}
	return logclient.Client{HTTP: &http.Client{Timeout: servedTimeout}, URL: address, Keys: keys}, nil
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Host)
}

func newMonitor() *cobra.Command {
	var flags logFlags
	var dir string
	var interval, auditEvery, patience time.Duration
	var once bool
	cmd := &cobra.Command{
		Use:   "monitor URL",
		Short: "Follow a log, and find out when it takes back or rewrites what it has said",
		Long: `Follows the log at URL. Each head must be signed by the given key and have grown out of the last one that was
checked, which is proved from the served tiles; a smaller tree is a rollback, another tree of the same size a fork. The last
head is kept in the state directory, so that a monitor that starts again goes on where it was.

With --audit-every it also recomputes the whole tree from the tiles, as kapsel audit does.

Exit code 1, and a file with both heads as evidence in the state directory, when the log is not what it was.`,
		Example: `  kapsel monitor https://log.example.com/log/1 --key @log.pub --state-dir /var/lib/kapsel-monitor
  kapsel monitor https://log.example.com/log/1 --key @log.pub --once`,
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := flags.client(args[0])
			if err != nil {
				return err
			}
			if interval <= 0 || patience < 0 || auditEvery < 0 {
				return usageError(errors.New("--interval must be above zero, --patience and --audit-every not below"))
			}
			var last int64 = -1
			m := &logclient.Monitor{
				Client: client, Dir: dir, Patience: patience,
				Seen: func(head *verify.Head) {
					if head.Size != last {
						fmt.Fprintf(cmd.OutOrStdout(), "tree size %d, root %x, signed %s: consistent\n", head.Size, head.Root, head.Time.Format(time.RFC3339))
						last = head.Size
					}
				},
				Missed: func(err error) { fmt.Fprintln(cmd.ErrOrStderr(), "kapsel: not checked, trying again:", oneLine(err)) },
			}
			if auditEvery > 0 {
				var audited time.Time
				m.Audit = func(ctx context.Context, head *verify.Head) error {
					if time.Since(audited) < auditEvery {
						return nil
					}
					_, err := flags.audit(ctx, client, head, nil)
					if err == nil {
						audited = time.Now()
					}
					return err
				}
			}
			if once {
				_, err := m.Step(cmd.Context())
				return err
			}
			if err := m.Run(cmd.Context(), interval); cmd.Context().Err() == nil {
				return err
			}
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&dir, "state-dir", "kapsel-monitor", "directory for the last head, and for evidence")
	cmd.Flags().DurationVar(&interval, "interval", 10*time.Second, "how often to look")
	cmd.Flags().DurationVar(&patience, "patience", 10*time.Second, "how long a served head may be smaller than one seen before, as with caches")
	cmd.Flags().DurationVar(&auditEvery, "audit-every", 0, "recompute the whole tree at the start, and so often from then on; 0: never")
	cmd.Flags().BoolVar(&once, "once", false, "look once, and exit")
	return cmd
}
