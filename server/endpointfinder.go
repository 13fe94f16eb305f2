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

// anyTenant is for callers to whom every tenant's endpoints are shown.
var anyTenant uuid.UUID

// look returns the endpoint as this node knows it, nil if there is none. It is not current when another node may have made it, or
// its first destination, a moment ago.
func (f *endpointFinder) look(endpointID, tenantID uuid.UUID) (endpoint *route.Endpoint, current bool) {
	endpoint = f.routes.Snapshot().Endpoint(endpointID)
	if endpoint != nil && tenantID != anyTenant && endpoint.TenantID != tenantID {
		endpoint = nil
	}
	if endpoint != nil && len(endpoint.Destinations) > 0 {
		return endpoint, true
	}
	age := time.Since(id.Time(endpointID))
	return endpoint, age > youngEndpoint || age < -youngEndpoint
}

// find returns the endpoint, nil if there is none. Whoever asks for one of which this node's snapshot is not current waits until
// it was read again. An error says that it could not be read, so nobody knows. Another tenant's endpoint is missed as one that
// does not exist is, so that the time it takes tells nothing either.
func (f *endpointFinder) find(ctx context.Context, endpointID, tenantID uuid.UUID) (*route.Endpoint, error) {
	endpoint, current := f.look(endpointID, tenantID)
	if current {
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
	endpoint, _ = f.look(endpointID, tenantID)
	return endpoint, nil
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
