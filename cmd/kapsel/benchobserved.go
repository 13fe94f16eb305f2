package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/kapsel-dev/kapsel/internal/node"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
)

// scrapeInterval is some ten times as often as Prometheus usually asks.
const scrapeInterval = time.Second

// observe has the node of a run measured: metrics, and traces if the environment turns them on.
func (b *benchFlags) observe(config *node.Config) (err error) {
	if !b.observed {
		return nil
	}
	config.AdminListen = "127.0.0.1:0"
	config.Tracer, err = telemetry.NewTracer(context.Background(), version(), config.Logger)
	return err
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
