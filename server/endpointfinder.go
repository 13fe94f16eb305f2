package server

import (
	"context"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/route"
)

const (
	// missInterval bounds how often unknown ids, which anyone can make up, cost a read of the configuration.
	missInterval = 100 * time.Millisecond
	// youngEndpoint is for how long after its creation an endpoint can be missing from a snapshot: far longer than the
	// table's polling, and than clocks differ.
	youngEndpoint = 5 * time.Minute
	// missTimeout bounds one read of the configuration for those who miss an endpoint.
	missTimeout = 5 * time.Second
)

// endpointFinder looks endpoints up in the route snapshot.
type endpointFinder struct {
	routes *route.Table

	mu     sync.Mutex
	coming *rereading // has not begun; nil if nobody waits for one
	began  time.Time  // the last one
}

// rereading is one read of the configuration, for all who missed an endpoint before it began.
type rereading struct {
	done chan struct{}
	err  error // once done is closed
}

// find returns the endpoint, nil if there is none. One that was made on another node a moment ago, or its first destination, is
// not in this node's snapshot yet: whoever asks for an id that is young enough waits until the snapshot was read again. An
// error says that it could not be read, so nobody knows.
func (f *endpointFinder) find(ctx context.Context, endpointID uuid.UUID) (*route.Endpoint, error) {
	return f.findIf(ctx, endpointID, func(*route.Endpoint) bool { return true })
}

// findOf is find for callers who may know of one tenant's endpoints only: another tenant's is missed as one that does not
// exist is, so that the time it takes tells nothing either.
func (f *endpointFinder) findOf(ctx context.Context, endpointID, tenantID uuid.UUID) (*route.Endpoint, error) {
	return f.findIf(ctx, endpointID, func(e *route.Endpoint) bool { return e.TenantID == tenantID })
}

func (f *endpointFinder) findIf(ctx context.Context, endpointID uuid.UUID, shown func(*route.Endpoint) bool) (*route.Endpoint, error) {
	look := func() *route.Endpoint {
		if endpoint := f.routes.Snapshot().Endpoint(endpointID); endpoint != nil && shown(endpoint) {
			return endpoint
		}
		return nil
	}
	endpoint := look()
	if endpoint != nil && len(endpoint.Destinations) > 0 {
		return endpoint, nil
	}
	if age := time.Since(id.Time(endpointID)); age > youngEndpoint || age < -youngEndpoint {
		return endpoint, nil
	}
	next := f.reread()
	select {
	case <-next.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if next.err != nil {
		return nil, storeUnavailable()
	}
	return look(), nil
}

// reread is the next read of the configuration that has not begun.
func (f *endpointFinder) reread() *rereading {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.coming == nil {
		next := &rereading{done: make(chan struct{})}
		f.coming = next
		time.AfterFunc(time.Until(f.began.Add(missInterval)), func() {
			f.mu.Lock()
			f.coming, f.began = nil, time.Now()
			f.mu.Unlock()
			ctx, cancel := context.WithTimeout(context.Background(), missTimeout)
			defer cancel()
			next.err = f.routes.Refresh(ctx)
			close(next.done)
		})
	}
	return f.coming
}
