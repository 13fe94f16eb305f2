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
	// missRest is how many times as long as a read of the configuration took none follows: unknown ids, which anyone can make up,
	// keep a tenth of a database connection busy, not all of it.
	missRest = 9
	// maxMissRest bounds it, and so the wait of one whose endpoint is there.
	maxMissRest = 500 * time.Millisecond
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
	busy   bool       // one is under way, or coming
	rested time.Time  // when the next one may begin
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
		f.coming = &rereading{done: make(chan struct{})}
	}
	if !f.busy {
		f.busy = true
		time.AfterFunc(time.Until(f.rested), f.read)
	}
	return f.coming
}

func (f *endpointFinder) read() {
	f.mu.Lock()
	current := f.coming
	f.coming = nil
	f.mu.Unlock()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), missTimeout)
	defer cancel()
	current.err = f.routes.Refresh(ctx)
	close(current.done)

	f.mu.Lock()
	defer f.mu.Unlock()
	rest := min(missRest*time.Since(began), maxMissRest)
	f.rested = time.Now().Add(rest)
	if f.busy = f.coming != nil; f.busy {
		time.AfterFunc(rest, f.read)
	}
}
