package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/bench"
	"github.com/kapsel-dev/kapsel/internal/node"
	"github.com/kapsel-dev/kapsel/internal/signature"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

// A rate at which webhooks do not wait for each other: what is measured is the way.
const listenRate = 50

// runListen measures how soon webhooks are at an app that listens through a stream of the server: those that are posted to
// the node with the stream, and those that are posted to another one.
func (b *benchFlags) runListen(ctx context.Context, own *benchServer, sink *bench.Sink) (_ benchReport, err error) {
	config := own.config
	config.Listen, config.OnSeal = "127.0.0.1:0", nil
	other, err := node.Start(ctx, config)
	if err != nil {
		return nil, err
	}
	defer func() {
		if stopErr := other.Stop(context.WithoutCancel(ctx)); err == nil {
			err = stopErr
		}
	}()
	secret := signature.NewSecret()
	endpoint, err := own.client.endpoints.CreateEndpoint(ctx, &kapselv1.CreateEndpointRequest{
		Endpoint: &kapselv1.Endpoint{DisplayName: "Bench listener", Verification: &kapselv1.Verification{Preset: signature.PresetGitHub}},
		Secrets:  []string{secret},
	})
	if err != nil {
		return nil, fmt.Errorf("create endpoint: %w", err)
	}
	laptop, err := openBenchLaptop(ctx, own, endpoint.Endpoint.Id, sink.URL())
	if err != nil {
		return nil, err
	}
	defer laptop.close()
	var runs []bench.ListenRun
	for _, n := range []struct {
		name string
		node *node.Node
	}{{"the node with the stream", own.node}, {"another node", other}} {
		if err := n.node.Routes().Refresh(ctx); err != nil {
			return nil, err
		}
		run := bench.ListenRun{Name: n.name, Config: b.config}
		run.Config.Secret, run.Config.IngestURL = secret, benchWay{endpoint: endpoint.Endpoint.Id}.ingestURL(n.node.URL())
		runs = append(runs, run)
	}
	return bench.RunListen(ctx, runs, sink, own)
}

// benchLaptop is a listening session whose app is a sink.
type benchLaptop struct {
	end     context.CancelFunc
	running sync.WaitGroup
}

// openBenchLaptop opens a session for one endpoint on the server's own node.
func openBenchLaptop(ctx context.Context, own *benchServer, endpointID, forwardURL string) (*benchLaptop, error) {
	c, err := kapsel.New(own.node.URL(), kapsel.WithAPIKey(own.apiKey))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l := &benchLaptop{end: cancel}
	request := &kapselv1.ListenRequest{EndpointIds: []string{endpointID}, ForwardUrl: forwardURL, MaxInFlight: 100}
	opened, failed := make(chan struct{}, 1), make(chan error, 1)
	options := kapsel.ListenOptions{OnSession: func(*kapselv1.ListenSession) {
		select {
		case opened <- struct{}{}:
		default: // an interruption was bridged
		}
	}}
	app := &http.Client{Transport: new(http.Transport)}
	l.running.Go(func() {
		defer app.CloseIdleConnections()
		for incoming, err := range c.ListenDeliveries(ctx, request, options) {
			if err != nil {
				failed <- err
				return
			}
			l.running.Go(func() { incoming.Forward(ctx, app, forwardURL) }) // what is not reported makes the run fail
		}
	})
	select {
	case <-opened:
		return l, nil
	case err := <-failed:
		l.close()
		return nil, fmt.Errorf("listen: %w", err)
	}
}

func (l *benchLaptop) close() {
	l.end()
	l.running.Wait()
}
