package server

import (
	"context"
	"sync/atomic"
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
)

// endpointFinder looks endpoints up in the route snapshot.
type endpointFinder struct {
	routes   *route.Table
	lastMiss atomic.Int64 // Unix nanoseconds of the last refresh for a miss
}

// find returns the endpoint, nil if there is none. One that was made on another node a moment ago is not in this node's
// snapshot yet: an id that is young enough may have the snapshot read again, now and then.
func (f *endpointFinder) find(ctx context.Context, endpointID uuid.UUID) *route.Endpoint {
	if endpoint := f.routes.Snapshot().Endpoint(endpointID); endpoint != nil {
		return endpoint
	}
	now := time.Now()
	if age := now.Sub(id.Time(endpointID)); age > youngEndpoint || age < -youngEndpoint {
		return nil
	}
	last := f.lastMiss.Load()
	if now.UnixNano()-last < int64(missInterval) || !f.lastMiss.CompareAndSwap(last, now.UnixNano()) {
		return nil
	}
	if err := f.routes.Refresh(ctx); err != nil {
		return nil // as before: the snapshot says what is known
	}
	return f.routes.Snapshot().Endpoint(endpointID)
}
