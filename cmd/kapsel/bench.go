package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/bench"
	"github.com/kapsel-dev/kapsel/internal/embedpg"
	"github.com/kapsel-dev/kapsel/internal/node"
	"github.com/kapsel-dev/kapsel/internal/signature"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
)

// benchSealAge lets the last leaves of a run be sealed soon, since rates count until the last webhook is sealed.
const benchSealAge = time.Second

func newBench() *cobra.Command {
	var config bench.Config
	var flags clientFlags
	var dataDir, profile string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure webhooks per second end to end, and latencies",
		Long: `Starts a server, a PostgreSQL, a sink and a load generator, posts signed webhooks, and waits
until each is delivered, recorded and sealed. It counts by id at the sink: a lost webhook makes it fail.
With --url it measures a running server, which must allow 127.0.0.0/8 as destination.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			result, err := runBench(cmd.Context(), config, flags, dataDir, profile)
			if err != nil {
				return err
			}
			if asJSON {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(result)
			} else {
				err = result.WriteTable(cmd.OutOrStdout())
			}
			if err != nil {
				return fmt.Errorf("print result: %w", err)
			}
			return result.Err()
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.url, "url", "", "measure this running server instead of one of its own")
	f.StringVar(&flags.apiKey, "api-key", "", "API key for --url; better in KAPSEL_API_KEY")
	f.IntVar(&config.Conns, "conns", bench.DefaultConns, "connections, each with one webhook in flight")
	f.DurationVar(&config.Duration, "duration", bench.DefaultDuration, "how long to send")
	f.DurationVar(&config.Warmup, "warmup", 2*time.Second, "how long to send before measuring")
	f.Float64Var(&config.Rate, "rate", 0, "webhooks a second; 0 sends as fast as they are answered")
	f.IntVar(&config.PayloadBytes, "payload", bench.DefaultPayloadBytes, "bytes a webhook")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	f.StringVar(&dataDir, "data-dir", "", "where PostgreSQL keeps its data (default a temporary directory)")
	f.StringVar(&profile, "cpuprofile", "", "write a CPU profile of the run to this file")
	return cmd
}

func runBench(ctx context.Context, config bench.Config, flags clientFlags, dataDir, profile string) (_ bench.Result, err error) {
	sink, err := bench.NewSink("127.0.0.1:0")
	if err != nil {
		return bench.Result{}, err
	}
	sinkCtx, stopSink := context.WithCancel(context.WithoutCancel(ctx))
	sinkDone := make(chan error, 1)
	go func() { sinkDone <- sink.Run(sinkCtx) }()
	defer func() {
		stopSink()
		<-sinkDone
	}()

	target, probe := flags.url, bench.Probe(nil)
	apiKey := flags.apiKey
	if target == "" {
		own, stop, err := startBenchServer(ctx, dataDir)
		if err != nil {
			return bench.Result{}, err
		}
		defer stop(&err)
		if apiKey, err = createTenantWithKey(ctx, own.node.DB(), "Bench"); err != nil {
			return bench.Result{}, err
		}
		target, probe = own.node.URL(), own
		own.client = newClient(target, apiKey)
	} else {
		if apiKey == "" {
			return bench.Result{}, usageError(fmt.Errorf("--url needs an API key: set KAPSEL_API_KEY"))
		}
		probe = &apiProbe{newClient(target, apiKey)}
	}
	config.IngestURL, config.Secret, err = createBenchEndpoint(ctx, newClient(target, apiKey), target, sink.URL())
	if err != nil {
		return bench.Result{}, err
	}
	if err := config.Validate(); err != nil {
		return bench.Result{}, usageError(err)
	}
	stopProfile, err := startProfile(profile)
	if err != nil {
		return bench.Result{}, err
	}
	defer stopProfile()
	return bench.Run(ctx, config, sink, probe)
}

// createBenchEndpoint makes an endpoint whose webhooks go to the sink.
func createBenchEndpoint(ctx context.Context, c client, url, sinkURL string) (ingestURL, secret string, err error) {
	secret = signature.NewSecret()
	endpoint, err := c.endpoints.CreateEndpoint(ctx, &kapselv1.CreateEndpointRequest{
		Endpoint: &kapselv1.Endpoint{
			DisplayName: "Bench", Verification: &kapselv1.Verification{Preset: signature.PresetGitHub},
			PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON, MaxBodyBytes: 10 << 20,
		},
		Secrets: []string{secret},
	})
	if err != nil {
		return "", "", fmt.Errorf("create endpoint: %w", err)
	}
	_, err = c.destinations.CreateDestination(ctx, &kapselv1.CreateDestinationRequest{
		Destination: &kapselv1.Destination{DisplayName: "Bench sink", EndpointId: endpoint.Endpoint.Id, Url: sinkURL},
	})
	if err != nil {
		return "", "", fmt.Errorf("create destination: %w", err)
	}
	return url + "/ingest/" + endpoint.Endpoint.Id, secret, nil
}

// startBenchServer runs a node on a PostgreSQL of its own. stop ends both.
func startBenchServer(ctx context.Context, dataDir string) (*ownProbe, func(*error), error) {
	relaxCollector()
	stateDir, err := os.MkdirTemp("", "kapsel-bench-")
	if err != nil {
		return nil, nil, fmt.Errorf("make state directory: %w", err)
	}
	log := telemetry.NewText(os.Stderr, slog.LevelWarn)
	postgres, err := embedpg.Start(ctx, embedpg.Config{DataDir: dataDir, Durable: true, Logger: log})
	if err != nil {
		os.RemoveAll(stateDir)
		return nil, nil, err
	}
	probe := &ownProbe{}
	probe.node, err = node.Start(ctx, node.Config{
		DatabaseURL: postgres.ConnString("postgres"), Listen: "127.0.0.1:0", StateDir: filepath.Join(stateDir, "state"),
		AllowedDestinations: loopback, SealAge: benchSealAge, Version: version(), Logger: log, OnSeal: probe.sealed,
	})
	stop := func(err *error) {
		if probe.node != nil {
			if stopErr := probe.node.Stop(context.WithoutCancel(ctx)); *err == nil {
				*err = stopErr
			}
		}
		stopPostgres(postgres, err)
		os.RemoveAll(stateDir)
	}
	if err != nil {
		stop(&err)
		return nil, nil, err
	}
	return probe, stop, nil
}
