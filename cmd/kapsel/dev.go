package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/kapsel-dev/kapsel/internal/embedpg"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/node"
	"github.com/kapsel-dev/kapsel/internal/signature"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
)

const stopTimeout = time.Minute

// loopback is where the demo's destinations are.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func newDev() *cobra.Command {
	var flags nodeFlags
	var dataDir, readyFile string
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything on this machine: PostgreSQL, a node, a demo endpoint and destination",
		Long: `Runs a node with an embedded PostgreSQL, a demo tenant, an endpoint for GitHub webhooks and a
destination that echoes what it gets. KAPSEL_DATABASE_URL uses a PostgreSQL of yours instead.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDev(cmd, &flags, dataDir, readyFile)
		},
	}
	flags.add(cmd.Flags())
	logLevel := cmd.Flags().Lookup("log-level")
	logLevel.DefValue, flags.logLevel = "debug", "debug" // each step of each webhook
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "where all data is kept (default under the user's state directory)")
	cmd.Flags().StringVar(&readyFile, "ready-file", "", "write a JSON file with all that was made once the server is ready")
	return cmd
}

func runDev(cmd *cobra.Command, flags *nodeFlags, dataDir, readyFile string) (err error) {
	ctx := cmd.Context()
	level, err := flags.parse()
	if err != nil {
		return err
	}
	levels := telemetry.NewLevels(level)
	log := telemetry.NewText(os.Stderr, levels)
	dir, err := devDir(dataDir)
	if err != nil {
		return err
	}
	if flags.config.StateDir == "" {
		flags.config.StateDir = filepath.Join(dir, "state")
	}
	planned := flags.config
	planned.DatabaseURL = cmp.Or(planned.DatabaseURL, "postgres://") // its own, once it runs
	if err := planned.Validate(); err != nil {
		return usageError(err)
	}
	// 0711: the unprivileged user that PostgreSQL runs as when we are root must get through to its own directory.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	if readyFile != "" {
		os.Remove(readyFile) // of an earlier start: it must not look as if this one were ready
	}
	config := flags.config
	config.Logger, config.LogLevels = log, levels
	if config.Tracer, err = telemetry.NewTracer(ctx, version(), log); err != nil {
		return usageError(err)
	}
	config.AllowedDestinations = append(config.AllowedDestinations, loopback...)
	if config.DatabaseURL == "" {
		postgres, err := embedpg.Start(ctx, embedpg.Config{DataDir: filepath.Join(dir, "postgres"), Durable: true, Logger: log})
		if err != nil {
			return err
		}
		defer stopPostgres(postgres, &err)
		config.DatabaseURL = postgres.ConnString("postgres")
	}
	echo, err := startEcho(log)
	if err != nil {
		return err
	}
	defer echo.Close()
	n, err := node.Start(ctx, config)
	if err != nil {
		return err
	}
	d, err := setUpDemo(ctx, n, dir, echo.URL)
	if err == nil {
		err = d.announce(cmd.OutOrStdout(), dir, readyFile)
	}
	if err != nil {
		n.Stop(context.WithoutCancel(ctx))
		return err
	}
	return untilDone(ctx, n)
}

func stopPostgres(postgres *embedpg.Server, err *error) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if stopErr := postgres.Stop(ctx); *err == nil {
		*err = stopErr
	}
}

// devDir is where kapsel dev keeps its data.
func devDir(dataDir string) (string, error) {
	if dataDir != "" {
		return filepath.Abs(dataDir)
	}
	state, err := embedpg.DefaultDataDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(state, "dev"), nil
}

// announce writes the demo's files and tells a person what there is and what to do next.
func (d demo) announce(w io.Writer, dir, readyFile string) error {
	if err := d.write(filepath.Join(dir, demoFile)); err != nil {
		return err
	}
	body := `{"zen":"Keep it logically awesome.","hook_id":1}`
	header, err := signature.Sign(signature.Config{Preset: signature.PresetGitHub}, []byte(d.SigningSecret), []byte(body), time.Now(), id.New().String())
	if err != nil {
		return fmt.Errorf("sign the demo's webhook: %w", err)
	}
	where := ""
	if usual, err := devDir(""); err != nil || dir != usual {
		where = " --data-dir '" + dir + "'"
	}
	fmt.Fprintf(w, `
Kapsel is ready.

  API              %s
  API key          %s
  endpoint         %s   (GitHub preset, JSON)
  destination      %s   (%s, echoes what it gets)
  signing secret   %s
  log              %s
  public key       %s

Post a signed webhook:

  curl -i %s \
    -H 'Content-Type: application/json' -H 'X-GitHub-Event: ping' \
    -H 'X-GitHub-Delivery: %s' \
    -H 'X-Hub-Signature-256: %s' \
    -d '%s'

or sign a file of yours:    %s send FILE%s
then prove its delivery:    %[13]s proof EVENT_ID -o proof.json%[14]s
and check that offline:     %[13]s verify proof.json --key '%[8]s'

For the commands of README.md and docs/quickstart.md, in another shell:

  export KAPSEL_URL=%[1]s KAPSEL_API_KEY=%[2]s
  export KAPSEL_LOG_PUBLIC_KEY='%[8]s' DESTINATION_URL=%[5]s

Ctrl-C drains and stops. Each step of each webhook follows.

`, d.URL, d.APIKey, d.EndpointID, d.DestinationID, d.DestinationURL, d.SigningSecret, d.LogURL, d.PublicKey,
		d.IngestURL, header.Get("X-GitHub-Delivery"), header.Get("X-Hub-Signature-256"), body, os.Args[0], where)
	if readyFile == "" {
		return nil
	}
	return d.write(readyFile)
}
