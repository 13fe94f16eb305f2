package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/bench"
)

// benchFlags say what to measure, and on what.
type benchFlags struct {
	config   bench.Config
	server   clientFlags
	scenario string
	backlog  int
	limit    int
	dead     string
	leaves   int64
	unsealed int64
	keys     int
	dataDir  string
	rounds   int
	profile  string
	asJSON   bool

	line *progressLine // of what takes long
}

// benchReport is what one scenario measured.
type benchReport interface {
	WriteTable(w io.Writer) error
	Err() error // why the run does not count
}

func newBench() *cobra.Command {
	var flags benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure webhooks per second end to end, and latencies",
		Long: `Starts a server, a PostgreSQL, a sink and a load generator, posts signed webhooks, and waits
until each is delivered, recorded and sealed. It counts by id at the sink: a lost webhook makes it fail.
With --url it measures a running server, which must allow 127.0.0.0/8 as destination.

Scenarios, all but the first on a server of its own only:
  throughput  the load alone
  noisy       the load alone, then beside a dead destination with a backlog: its latency
  backlog     the same as fast as answered: its throughput, memory and connections
  log         proofs, seals and watchers of a log of --leaves
  inflight    a sink that takes a second for each delivery: how many are in flight at once
  ordered     the load to a destination without order, then to one that orders by key: what order costs
  limit       the load alone, then beside another tenant that sends 20 times what it may: its latency
  observed    a plain server, then one with metrics that are scraped every second, traces of one event in 100
              (OTEL_TRACES_SAMPLER_ARG) and logs of level info, and so on in turn: what being observed costs
  listen      how soon webhooks are at an app that listens, posted to the node with its stream and to another node`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags.line = newProgress(cmd.ErrOrStderr(), "")
			flags.config.Progress = flags.line.stage
			if err := flags.complete(cmd.Flags()); err != nil {
				return usageError(err)
			}
			result, err := flags.run(cmd.Context())
			flags.line.end()
			if err != nil {
				return err
			}
			if flags.asJSON {
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
	f.StringVar(&flags.scenario, "scenario", scenarioThroughput, "throughput, noisy, backlog, inflight, ordered, log, limit, observed or listen")
	f.StringVar(&flags.server.url, "url", "", "measure this running server instead of one of its own")
	f.StringVar(&flags.server.apiKey, "api-key", "", "API key for --url; better in KAPSEL_API_KEY")
	f.IntVar(&flags.config.Conns, "conns", bench.DefaultConns, "connections, each with one webhook in flight")
	f.DurationVar(&flags.config.Duration, "duration", bench.DefaultDuration, "how long to send")
	f.DurationVar(&flags.config.Warmup, "warmup", 2*time.Second, "how long to send before measuring")
	f.Float64Var(&flags.config.Rate, "rate", 0, "webhooks a second; 0 sends as fast as they are answered (default 500 for noisy and limit, 1200 for inflight, 50 for listen)")
	f.IntVar(&flags.config.PayloadBytes, "payload", bench.DefaultPayloadBytes, "bytes a webhook")
	f.IntVar(&flags.backlog, "backlog", 0, "deliveries queued behind the dead destination (default 500000 for noisy, 1000000 for backlog)")
	f.IntVar(&flags.keys, "keys", 0, "keys that webhooks are ordered by (default 1000 for ordered)")
	f.IntVar(&flags.limit, "limit", 100, "webhooks a second that the flooding tenant of limit may send")
	f.StringVar(&flags.dead, "dead", deadRefuses, "what the dead destination does: refuse connections, or hang")
	f.Int64Var(&flags.leaves, "leaves", 1_000_000, "leaves of the log that proofs come from, for log")
	f.Int64Var(&flags.unsealed, "unsealed", 0, "leaves that wait for a sealer that was away, for log")
	f.BoolVar(&flags.asJSON, "json", false, "print one JSON object")
	f.StringVar(&flags.dataDir, "data-dir", "", "where PostgreSQL keeps its data (default a temporary directory)")
	f.IntVar(&flags.rounds, "rounds", observedRounds, "times that observed measures each way")
	f.StringVar(&flags.profile, "cpuprofile", "", "write a CPU profile of the run to this file")
	return cmd
}

const (
	scenarioThroughput = "throughput"
	scenarioNoisy      = "noisy"
	scenarioBacklog    = "backlog"
	scenarioInFlight   = "inflight"
	scenarioLimit      = "limit"
	scenarioOrdered    = "ordered"
	scenarioLog        = "log"
	scenarioObserved   = "observed"
	scenarioListen     = "listen"

	deadRefuses = "refuse"
	deadHangs   = "hang"
)

const (
	// A rate that leaves the machine half idle, so that latency is that of the way and not of a queue.
	noisyRate = 500
	// More than 1,000 deliveries of a second each, so that the lane is full all the time.
	inFlightRate = 1200
	// What the service promises for a full queue.
	noisyBacklog = 500_000
	fullBacklog  = 1_000_000
	// Many more than webhooks are under way, so that those of a key rarely wait for each other.
	orderedKeys = 1000
	// Enough for a median.
	observedRounds = 3
)

// complete fills in what depends on the scenario, and refuses what it does not take.
func (b *benchFlags) complete(given *pflag.FlagSet) error {
	rate, backlog, keys := 0.0, 0, 0
	switch b.scenario {
	case scenarioThroughput:
	case scenarioNoisy:
		rate, backlog = noisyRate, noisyBacklog
	case scenarioBacklog:
		backlog = fullBacklog
	case scenarioInFlight:
		rate = inFlightRate
	case scenarioOrdered:
		keys = orderedKeys
	case scenarioLimit:
		rate = noisyRate
	case scenarioListen:
		rate = listenRate
	case scenarioLog, scenarioObserved:
	default:
		return fmt.Errorf("--scenario: %q is none of throughput, noisy, backlog, inflight, ordered, limit, log, observed, listen", b.scenario)
	}
	if b.dead != deadRefuses && b.dead != deadHangs {
		return fmt.Errorf("--dead: %q is neither refuse nor hang", b.dead)
	}
	if backlog == 0 && (given.Changed("backlog") || given.Changed("dead")) {
		return fmt.Errorf("--backlog and --dead: scenario %s has no dead destination", b.scenario)
	}
	if given.Changed("backlog") && (b.backlog < 1 || b.backlog > bench.MaxBacklog) {
		return fmt.Errorf("--backlog: %d is not in 1 to %d", b.backlog, bench.MaxBacklog)
	}
	if given.Changed("keys") && (b.scenario != scenarioOrdered || b.keys < 1) {
		return fmt.Errorf("--keys: give at least 1, with --scenario ordered")
	}
	if given.Changed("limit") && b.scenario != scenarioLimit {
		return fmt.Errorf("--limit: scenario %s has no tenant with a limit", b.scenario)
	}
	if given.Changed("rounds") && (b.scenario != scenarioObserved || b.rounds < 1 || b.rounds > bench.MaxRounds) {
		return fmt.Errorf("--rounds: give 1 to %d, with --scenario observed", bench.MaxRounds)
	}
	if (given.Changed("leaves") || given.Changed("unsealed")) && b.scenario != scenarioLog {
		return fmt.Errorf("--leaves and --unsealed: give them with --scenario log")
	}
	if b.leaves < 1 || b.leaves > maxBenchLeaves || b.unsealed < 0 || b.unsealed > maxBenchUnsealed {
		return fmt.Errorf("--leaves is not in 1 to %d, or --unsealed not in 0 to %d", maxBenchLeaves, maxBenchUnsealed)
	}
	if b.scenario == scenarioObserved && b.dataDir != "" {
		return fmt.Errorf("--data-dir: scenario observed makes a database for each of its rounds")
	}
	if b.scenario != scenarioThroughput && b.server.url != "" {
		return fmt.Errorf("scenario %s needs a server of its own: it cannot have --url", b.scenario)
	}
	if b.server.url != "" && b.server.apiKey == "" {
		return fmt.Errorf("--url needs an API key: set KAPSEL_API_KEY")
	}
	if !given.Changed("rate") {
		b.config.Rate = rate
	}
	if !given.Changed("backlog") {
		b.backlog = backlog
	}
	if !given.Changed("keys") {
		b.keys = keys
	}
	b.config.Keys = b.keys
	return nil
}

// slowDelivery is what the sink of inflight takes for each delivery.
const slowDelivery = time.Second

// run measures what the flags say.
func (b *benchFlags) run(ctx context.Context) (_ benchReport, err error) {
	if b.scenario == scenarioLog {
		return b.runLog(ctx)
	}
	delay := time.Duration(0)
	if b.scenario == scenarioInFlight {
		delay = slowDelivery
	}
	sink, stopSink, err := startSink(ctx, delay)
	if err != nil {
		return nil, err
	}
	defer stopSink()
	if b.server.url != "" {
		c := newClient(b.server.url, b.server.apiKey)
		if err := b.prepare(ctx, c, b.server.url, sink); err != nil {
			return nil, err
		}
		return b.profiled(func() (benchReport, error) { return bench.Run(ctx, b.config, sink, &apiProbe{c}) })
	}
	if b.scenario == scenarioObserved {
		return b.profiled(func() (benchReport, error) { return b.runObserved(ctx, sink) })
	}
	own, stop, err := startBenchServer(ctx, b.dataDir)
	if err != nil {
		return nil, err
	}
	defer stop(&err)
	if err := b.prepare(ctx, own.client, own.node.URL(), sink); err != nil {
		return nil, err
	}
	switch b.scenario {
	case scenarioThroughput:
		if err := recycleLog(ctx, own.databaseURL, b.config.Warmup+b.config.Duration); err != nil {
			return nil, err
		}
	case scenarioNoisy, scenarioBacklog:
		stopDead, err := b.addDead(ctx, own)
		if err != nil {
			return nil, err
		}
		defer stopDead()
	case scenarioLimit:
		flood, stopFlood, err := b.addFlood(ctx, own)
		if err != nil {
			return nil, err
		}
		defer stopFlood()
		return b.profiled(func() (benchReport, error) { return bench.RunLimit(ctx, b.config, sink, own, flood) })
	}
	return b.profiled(func() (benchReport, error) {
		switch b.scenario {
		case scenarioNoisy:
			return bench.RunNoisy(ctx, b.config, sink, own, b.backlog)
		case scenarioBacklog:
			return bench.RunBacklog(ctx, b.config, sink, own, b.backlog)
		case scenarioInFlight:
			return bench.RunInFlight(ctx, b.config, sink, own)
		case scenarioOrdered:
			return b.runOrdered(ctx, own, sink)
		case scenarioListen:
			return b.runListen(ctx, own, sink)
		default:
			return bench.Run(ctx, b.config, sink, own)
		}
	})
}

// prepare makes the endpoint that gets the load, and checks the configuration.
func (b *benchFlags) prepare(ctx context.Context, c client, url string, sink *bench.Sink) error {
	destination := &kapselv1.Destination{DisplayName: "Bench sink", Url: sink.URL()}
	if b.scenario == scenarioInFlight {
		destination.MaxInFlight = 1000
	}
	way, err := createBenchWay(ctx, c, destination, kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_AUTO)
	if err != nil {
		return err
	}
	b.config.IngestURL, b.config.Secret = way.ingestURL(url), way.secret
	if err := b.config.Validate(); err != nil {
		return usageError(err)
	}
	return nil
}

// runOrdered makes a second endpoint, whose destination keeps order, and measures both.
func (b *benchFlags) runOrdered(ctx context.Context, own *benchServer, sink *bench.Sink) (benchReport, error) {
	way, err := createBenchWay(ctx, own.client, &kapselv1.Destination{
		DisplayName: "Bench sink, ordered", Url: sink.URL(),
		Ordering: &kapselv1.Ordering{Key: &kapselv1.Ordering_Header{Header: bench.KeyHeader}},
	}, kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_AUTO)
	if err != nil {
		return nil, err
	}
	ordered := b.config
	ordered.IngestURL, ordered.Secret = way.ingestURL(own.node.URL()), way.secret
	return bench.RunOrdered(ctx, b.config, ordered, sink, own)
}

// profiled measures under a CPU profile, if one is wanted.
func (b *benchFlags) profiled(measure func() (benchReport, error)) (benchReport, error) {
	stop, err := startProfile(b.profile)
	if err != nil {
		return nil, err
	}
	defer stop()
	return measure()
}

// startSink runs a sink until stop is called.
func startSink(ctx context.Context, delay time.Duration) (_ *bench.Sink, stop func(), err error) {
	sink, err := bench.NewSlowSink("127.0.0.1:0", delay)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		sink.Run(ctx) // its one error, a listener that was closed before, would show as losses
	}()
	return sink, func() { cancel(); <-done }, nil
}
