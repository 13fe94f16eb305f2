package delivery

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/store"
)

// releaseTimeout bounds the giving back of leases. What is not given back runs out by itself.
const releaseTimeout = 5 * time.Second

// outlasting is ctx, but ends releaseTimeout later: a claim that is cut off may be committed all the same, and leases of which
// its node does not know have to run out.
func outlasting(ctx context.Context) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(releaseTimeout, cancel) })
	return longer, func() {
		stop()
		cancel()
	}
}

// Leases gives back what this node holds and will not send.
type Leases struct {
	db     *store.DB
	nodeID uuid.UUID
	log    *slog.Logger
}

// NewLeases makes the Leases of a node.
func NewLeases(db *store.DB, nodeID uuid.UUID, log *slog.Logger) *Leases {
	return &Leases{db: db, nodeID: nodeID, log: log}
}

// Release makes the jobs due at once for any node.
func (l *Leases) Release(ctx context.Context, jobs []Job) {
	var held store.ReleaseLeasesParams
	for _, job := range jobs {
		held.TenantIds, held.DeliveryIds = append(held.TenantIds, job.Event.TenantID), append(held.DeliveryIds, job.DeliveryID)
		held.Attempts = append(held.Attempts, int32(job.Attempts))
	}
	l.release(ctx, held)
}

// release gives back leases of this node.
func (l *Leases) release(ctx context.Context, held store.ReleaseLeasesParams) {
	if len(held.DeliveryIds) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	held.NodeID = l.nodeID
	if _, err := l.db.ReleaseLeases(ctx, l.db.Engine(), held); err != nil {
		l.log.Warn("leases not given back, they run out", "leases", len(held.DeliveryIds), "error", err)
	}
}
