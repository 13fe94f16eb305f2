package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/kapsel-dev/kapsel/internal/bench"
	"github.com/kapsel-dev/kapsel/internal/node"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
)

// scrapeInterval is some ten times as often as Prometheus usually asks.
const scrapeInterval = time.Second

// observedTraces is the share of traces that a busy service exports; failures are exported besides.
const observedTraces = "0.01"

// runObserved measures servers that are observed by all means, and servers that are not.
func (b *benchFlags) runObserved(ctx context.Context, sink *bench.Sink) (benchReport, error) {
	stopCollector, err := startCollector()
	if err != nil {
		return nil, err
	}
	defer stopCollector()
	return bench.RunObserved(ctx, b.rounds, func(ctx context.Context, observed bool) (_ bench.Result, err error) {
		prepare := func(*node.Config) error { return nil }
		if observed {
			prepare = observe
		}
		own, stop, err := startPreparedServer(ctx, b.dataDir, prepare)
		if err != nil {
			return bench.Result{}, err
		}
		defer stop(&err)
		if observed {
			stopScraping := scrape(ctx, own.node)
			defer func() { err = errors.Join(err, stopScraping()) }()
		}
		if err := b.prepare(ctx, own.client, own.node.URL(), sink); err != nil {
			return bench.Result{}, err
		}
		if err := recycleLog(ctx, own.databaseURL, b.config.Warmup+b.config.Duration); err != nil {
			return bench.Result{}, err
		}
		return bench.Run(ctx, b.config, sink, own)
	})
}

// observe turns on metrics and traces, and logs of level info, as an operator does.
func observe(config *node.Config) (err error) {
	config.AdminListen = "127.0.0.1:0"
	config.Logger = telemetry.NewJSON(io.Discard, telemetry.NewLevels(slog.LevelInfo))
	config.Tracer, err = telemetry.NewTracer(context.Background(), version(), config.Logger)
	return err
}

// startCollector has traces go to a collector that forgets them, until stop is called. The variables that an operator sets hold:
// with OTEL_EXPORTER_OTLP_ENDPOINT, traces go there.
func startCollector() (stop func(), err error) {
	if os.Getenv("OTEL_TRACES_SAMPLER_ARG") == "" {
		os.Setenv("OTEL_TRACES_SAMPLER_ARG", observedTraces)
	}
	if os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start collector: %w", err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(listener) // until it is closed
	}()
	os.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+listener.Addr().String())
	return func() {
		os.Unsetenv("OTEL_EXPORTER_OTLP_ENDPOINT")
		server.Close()
		<-done
	}, nil
}

// scrape reads the metrics of a node as Prometheus does, until the returned function is called. That returns the error of
// the scrapes, if any failed.
func scrape(ctx context.Context, n *node.Node) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var failure error
	var running sync.WaitGroup
	running.Go(func() {
		ticker := time.NewTicker(scrapeInterval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			if err := scrapeOnce(ctx, n.AdminURL()+"/metrics"); err != nil && ctx.Err() == nil {
				failure = fmt.Errorf("scrape: %w", err)
			}
		}
	})
	return func() error {
		cancel()
		running.Wait()
		return failure
	}
}

func scrapeOnce(ctx context.Context, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", response.Status)
	}
	return nil
}
