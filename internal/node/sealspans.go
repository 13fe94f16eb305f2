package node

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
	"github.com/kapsel-dev/kapsel/internal/tlog"
)

// maxUnsealedSpans bounds how many attempts wait for their seal to be told of. Beyond it, they have no span of their seal.
const maxUnsealedSpans = 8192

// sealSpans ends the traces of attempts: when a head covers the leaf of one, whichever node signed it.
type sealSpans struct {
	tracer *telemetry.Tracer
	origin string
	heads  *tlog.Heads

	mu      sync.Mutex
	waiting []delivery.Recorded
}

// recorded takes an attempt that is recorded. It does not block.
func (s *sealSpans) recorded(r delivery.Recorded) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) < maxUnsealedSpans {
		s.waiting = append(s.waiting, r)
	}
}

// Run tells of seals until ctx ends.
func (s *sealSpans) Run(ctx context.Context) error {
	for {
		head, known, changed := s.heads.State()
		if known {
			s.covered(head.Size)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// covered tells of the attempts whose leaves are in a tree of this size.
func (s *sealSpans) covered(size int64) {
	now := time.Now()
	s.mu.Lock()
	var sealed []delivery.Recorded
	kept := s.waiting[:0]
	for _, r := range s.waiting {
		if r.LeafIndex < size {
			sealed = append(sealed, r)
		} else {
			kept = append(kept, r)
		}
	}
	s.waiting = kept
	s.mu.Unlock()
	for _, r := range sealed {
		s.tracer.Tell(telemetry.Span{
			Name: "seal", TraceID: r.Span.TraceID, Parent: r.Span.SpanID, Start: r.At, End: now,
			Attributes: []attribute.KeyValue{attribute.Int64("kapsel.leaf_index", r.LeafIndex), attribute.Int64("kapsel.tree_size", size)},
			Links:      []telemetry.Link{s.head(size)},
		})
	}
}

// head is the span of a seal as a whole: every node knows it by the tree's size.
func (s *sealSpans) head(size int64) (span telemetry.Link) {
	digest := sha256.Sum256(fmt.Appendf(nil, "kapsel seal span\n%s\n%d\n", s.origin, size))
	copy(span.TraceID[:], digest[:])
	copy(span.SpanID[:], digest[len(span.TraceID):])
	return span
}

// onSeal tells of a seal that this node made, and then next, if there is one.
func (s *sealSpans) onSeal(next func(tlog.SealStats)) func(tlog.SealStats) {
	if !s.tracer.On() {
		return next
	}
	return func(stats tlog.SealStats) {
		now, span := time.Now(), s.head(stats.Head.Size)
		s.tracer.Tell(telemetry.Span{
			Name: "sign tree head", TraceID: span.TraceID, ID: span.SpanID, Start: now.Add(-stats.Took), End: now,
			Attributes: []attribute.KeyValue{attribute.Int64("kapsel.tree_size", stats.Head.Size), attribute.Int64("kapsel.leaves", stats.Leaves)},
		})
		if next != nil {
			next(stats)
		}
	}
}
