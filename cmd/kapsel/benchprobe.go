package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"sync"
	"time"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/bench"
	"github.com/kapsel-dev/kapsel/internal/node"
	"github.com/kapsel-dev/kapsel/internal/tlog"
)

// ownProbe looks into the bench's own server.
type ownProbe struct {
	node   *node.Node
	client client

	mu    sync.Mutex
	seals []time.Duration
	asked int64 // statements of the probe itself
}

func (p *ownProbe) sealed(s tlog.SealStats) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seals = append(p.seals, s.Took)
}

func (p *ownProbe) Progress(ctx context.Context) (bench.Progress, error) {
	p.asked++
	row, err := p.node.DB().LogProgress(ctx, p.node.DB().Engine(), 1)
	if err != nil {
		return bench.Progress{}, fmt.Errorf("read progress: %w", err)
	}
	return bench.Progress{Recorded: row.NextIndex, Sealed: row.TreeSize, RoundTrips: p.node.DB().RoundTrips() - p.asked}, nil
}

func (p *ownProbe) Seals() []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seals[:len(p.seals):len(p.seals)]
}

func (p *ownProbe) Prove(ctx context.Context) (time.Duration, error) {
	return (&apiProbe{p.client}).Prove(ctx)
}

// apiProbe looks into a running server from outside: what it can see is what is sealed.
type apiProbe struct{ client client }

func (p *apiProbe) Progress(ctx context.Context) (bench.Progress, error) {
	response, err := p.client.attestation.GetTreeHead(ctx, &kapselv1.GetTreeHeadRequest{})
	if err != nil {
		return bench.Progress{}, fmt.Errorf("get tree head: %w", err)
	}
	size := response.TreeHead.TreeSize
	return bench.Progress{Recorded: size, Sealed: size, RoundTrips: -1}, nil
}

func (*apiProbe) Seals() []time.Duration { return nil }

// Prove fetches the inclusion proof of a random leaf over HTTP.
func (p *apiProbe) Prove(ctx context.Context) (time.Duration, error) {
	head, err := p.client.attestation.GetTreeHead(ctx, &kapselv1.GetTreeHeadRequest{})
	if err != nil {
		return 0, fmt.Errorf("get tree head: %w", err)
	}
	started := time.Now()
	_, err = p.client.attestation.GetInclusionProof(ctx, &kapselv1.GetInclusionProofRequest{
		Leaf: &kapselv1.GetInclusionProofRequest_LeafIndex{LeafIndex: rand.Int64N(head.TreeHead.TreeSize)},
	})
	if err != nil {
		return 0, fmt.Errorf("get inclusion proof: %w", err)
	}
	return time.Since(started), nil
}

// startProfile writes a CPU profile until the returned function is called. An empty path writes none.
func startProfile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	file, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("create profile: %w", err)
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		file.Close()
		return nil, fmt.Errorf("start profile: %w", err)
	}
	return func() {
		pprof.StopCPUProfile()
		file.Close()
	}, nil
}
