package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
)

const (
	benchWatchers = 1000
	// Streams of one connection: fewer than a server allows.
	benchWatchersPerConn = 100
	benchWatchPatience   = 30 * time.Second
)

// watchers follow the heads of a server over gRPC.
type watchers struct {
	seen    chan sighting
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// sighting is one watcher's first look at a head.
type sighting struct {
	size int64
	at   time.Time
}

// openWatchers opens the streams, and waits until each has its first head.
func openWatchers(ctx context.Context, url string) (_ *watchers, err error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &watchers{seen: make(chan sighting, 16*benchWatchers), cancel: cancel}
	ready := make(chan error, benchWatchers)
	var service kapselv1connect.AttestationServiceClient
	for i := range benchWatchers {
		if i%benchWatchersPerConn == 0 {
			transport := &http.Transport{Protocols: new(http.Protocols)}
			transport.Protocols.SetUnencryptedHTTP2(true)
			service = kapselv1connect.NewAttestationServiceClient(connect.NewClient(
				connecthttp.NewTransport(&http.Client{Transport: transport}, url, connecthttp.WithGRPC())))
		}
		w.running.Go(func() { w.follow(ctx, service, ready) })
	}
	for range benchWatchers {
		if watchErr := <-ready; watchErr != nil {
			err = watchErr
		}
	}
	if err != nil {
		w.close()
		return nil, fmt.Errorf("watch tree heads: %w", err)
	}
	return w, nil
}

func (w *watchers) follow(ctx context.Context, service kapselv1connect.AttestationServiceClient, ready chan<- error) {
	stream, err := service.WatchTreeHeads(ctx, &kapselv1.WatchTreeHeadsRequest{})
	if err != nil {
		ready <- err
		return
	}
	defer stream.Close()
	_, err = stream.Receive()
	ready <- err
	for err == nil {
		var message *kapselv1.WatchTreeHeadsResponse
		if message, err = stream.Receive(); err == nil && message.GetHead() != nil {
			select {
			case w.seen <- sighting{message.GetHead().TreeHead.TreeSize, time.Now()}:
			case <-ctx.Done():
			}
		}
	}
}

// await waits until every watcher has seen a head of this size, tells each time, and returns the first one and how many
// watchers did not.
func (w *watchers) await(size int64, tell func(time.Time)) (first time.Time, missed int) {
	patience := time.After(benchWatchPatience)
	for missed = benchWatchers; missed > 0; {
		select {
		case s := <-w.seen:
			if s.size < size {
				continue
			}
			missed--
			tell(s.at)
			if first.IsZero() || s.at.Before(first) {
				first = s.at
			}
		case <-patience:
			return first, missed
		}
	}
	return first, 0
}

func (w *watchers) close() {
	w.cancel()
	w.running.Wait()
}
