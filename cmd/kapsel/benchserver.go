package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/bench"
	"github.com/kapsel-dev/kapsel/internal/embedpg"
	"github.com/kapsel-dev/kapsel/internal/node"
	"github.com/kapsel-dev/kapsel/internal/signature"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
	"github.com/kapsel-dev/kapsel/internal/tlog"
)

// benchSealAge lets the last leaves of a run be sealed soon, since rates count until the last webhook is sealed.
const benchSealAge = time.Second

// benchServer is a node and a PostgreSQL that are there for one run. It is its own probe.
type benchServer struct {
	node        *node.Node
	config      node.Config // of the node
	databaseURL string
	tenantID    uuid.UUID
	apiKey      string
	client      client
	dead        deadWay // of scenarios with a backlog

	mu    sync.Mutex
	seals []time.Duration
	heads []benchHead
	asked int64 // statements of the probe itself
}

// benchHead is a head that the server published.
type benchHead struct {
	tlog.SealStats
	published time.Time
}

// startBenchServer starts one with a tenant. stop ends both.
func startBenchServer(ctx context.Context, dataDir string) (_ *benchServer, stop func(*error), err error) {
	return startPreparedServer(ctx, dataDir, func(*node.Config) error { return nil })
}

// startPreparedServer does the same on a database that prepare has filled.
func startPreparedServer(ctx context.Context, dataDir string, prepare func(*node.Config) error) (_ *benchServer, stop func(*error), err error) {
	relaxCollector()
	stateDir, err := os.MkdirTemp("", "kapsel-bench-")
	if err != nil {
		return nil, nil, fmt.Errorf("make state directory: %w", err)
	}
	log := telemetry.NewText(os.Stderr, telemetry.NewLevels(slog.LevelWarn))
	postgres, err := embedpg.Start(ctx, embedpg.Config{DataDir: dataDir, Durable: true, Settings: benchSettings, Logger: log})
	if err != nil {
		os.RemoveAll(stateDir)
		return nil, nil, err
	}
	s := &benchServer{databaseURL: postgres.ConnString("postgres")}
	stop = func(err *error) {
		if s.node != nil {
			if stopErr := s.node.Stop(context.WithoutCancel(ctx)); *err == nil {
				*err = stopErr
			}
		}
		stopPostgres(postgres, err)
		os.RemoveAll(stateDir)
	}
	config := node.Config{
		DatabaseURL: s.databaseURL, Listen: "127.0.0.1:0", StateDir: filepath.Join(stateDir, "state"),
		AllowedDestinations: loopback, SealAge: benchSealAge, Version: version(), Logger: log, OnSeal: s.sealed,
	}
	if err = prepare(&config); err == nil {
		s.config = config
		s.node, err = node.Start(ctx, config)
	}
	if err == nil {
		err = s.addTenant(ctx)
	}
	if err != nil {
		stop(&err)
		return nil, nil, err
	}
	return s, stop, nil
}

func (s *benchServer) addTenant(ctx context.Context) (err error) {
	if s.tenantID, err = createTenant(ctx, s.node.DB(), "Bench"); err != nil {
		return err
	}
	s.apiKey, err = createAPIKey(ctx, s.node.DB(), s.tenantID)
	s.client = newClient(s.node.URL(), s.apiKey)
	return err
}

func (s *benchServer) sealed(stats tlog.SealStats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seals = append(s.seals, stats.Took)
	s.heads = append(s.heads, benchHead{stats, time.Now()})
}

// Progress reads the log's row.
func (s *benchServer) Progress(ctx context.Context) (bench.Progress, error) {
	s.asked += 2
	var written int64
	if err := s.node.DB().Engine().QueryRow(ctx, "select (pg_current_wal_lsn() - '0/0')::bigint").Scan(&written); err != nil {
		return bench.Progress{}, fmt.Errorf("read progress: %w", err)
	}
	row, err := s.node.DB().LogProgress(ctx, s.node.DB().Engine(), 1)
	if err != nil {
		return bench.Progress{}, fmt.Errorf("read progress: %w", err)
	}
	return bench.Progress{Recorded: row.NextIndex, Sealed: row.TreeSize, RoundTrips: s.node.DB().RoundTrips() - s.asked, WALBytes: written}, nil
}

// Seals returns how long each seal took so far.
func (s *benchServer) Seals() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seals[:len(s.seals):len(s.seals)]
}

// Prove fetches a proof as any client does.
func (s *benchServer) Prove(ctx context.Context) (time.Duration, error) {
	return (&apiProbe{s.client}).Prove(ctx)
}

// benchWay is an endpoint and its destination, by their ids' text.
type benchWay struct {
	endpoint, destination, secret string
}

func (w benchWay) ingestURL(server string) string {
	return strings.TrimSuffix(server, "/") + "/ingest/" + w.endpoint
}

// createBenchWay makes an endpoint for GitHub webhooks that go to one destination.
func createBenchWay(ctx context.Context, c client, destination *kapselv1.Destination, dedup kapselv1.DeduplicationSource) (benchWay, error) {
	way := benchWay{secret: signature.NewSecret()}
	endpoint, err := c.endpoints.CreateEndpoint(ctx, &kapselv1.CreateEndpointRequest{
		Endpoint: &kapselv1.Endpoint{
			DisplayName: destination.DisplayName, Verification: &kapselv1.Verification{Preset: signature.PresetGitHub},
			PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON, MaxBodyBytes: 10 << 20,
			Deduplication: &kapselv1.Deduplication{Source: dedup},
		},
		Secrets: []string{way.secret},
	})
	if err != nil {
		return way, fmt.Errorf("create endpoint: %w", err)
	}
	way.endpoint, destination.EndpointId = endpoint.Endpoint.Id, endpoint.Endpoint.Id
	created, err := c.destinations.CreateDestination(ctx, &kapselv1.CreateDestinationRequest{Destination: destination})
	if err != nil {
		return way, fmt.Errorf("create destination: %w", err)
	}
	way.destination = created.Destination.Id
	return way, nil
}
