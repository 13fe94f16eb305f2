package ingest

import (
	"context"

	"golang.org/x/sync/semaphore"

	"github.com/kapsel-dev/kapsel/internal/route"
)

const (
	// A payload that is decoded, for a schema or an expression, takes up to 50 times its length: some 800 MiB in all. That is for
	// one of the largest and some more.
	maxLookedInto = 16 << 20
	// freeToLookInto is a payload that waits for no other: so many are not looked into at the same time that it would matter.
	freeToLookInto = 64 << 10
)

func newLooking() *semaphore.Weighted { return semaphore.NewWeighted(maxLookedInto) }

// decide is newPending, which for a large payload that has to be decoded waits until others are done with theirs.
func (in *Ingest) decide(ctx context.Context, w Webhook, preset string) (*pending, error) {
	if len(w.Body) <= freeToLookInto || !looksInside(w.Endpoint) {
		return newPending(w, preset), nil
	}
	size := min(int64(len(w.Body)), maxLookedInto)
	waiting, cancel := context.WithTimeout(ctx, in.committer.hold)
	defer cancel()
	if in.looking.Acquire(waiting, size) != nil {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return nil, ErrOverloaded
	}
	defer in.looking.Release(size)
	return newPending(w, preset), nil
}

// looksInside reports whether an endpoint's payloads are decoded.
func looksInside(endpoint *route.Endpoint) bool {
	if endpoint.Schema != nil {
		return true
	}
	for _, destination := range endpoint.Destinations {
		if destination.Filter.HasExpression() {
			return true
		}
	}
	return false
}
