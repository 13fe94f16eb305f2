package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/pprof"
	"time"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/bench"
)

// apiProbe looks into a running server from outside: what it can see is what is sealed.
type apiProbe struct{ client client }

func (p *apiProbe) Progress(ctx context.Context) (bench.Progress, error) {
	response, err := p.client.attestation.GetTreeHead(ctx, &kapselv1.GetTreeHeadRequest{})
	if err != nil {
		return bench.Progress{}, fmt.Errorf("get tree head: %w", err)
	}
	size := response.TreeHead.TreeSize
	return bench.Progress{Recorded: size, Sealed: size, RoundTrips: -1, WALBytes: -1}, nil
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
