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
	var tenantIDs, deliveryIDs []uuid.UUID
	for _, job := range jobs {
		tenantIDs = append(tenantIDs, job.Event.TenantID)
		deliveryIDs = append(deliveryIDs, job.DeliveryID)
	}
	l.release(ctx, tenantIDs, deliveryIDs, nil)
}

// release makes the rows due at a moment, nil for at once.
func (l *Leases) release(ctx context.Context, tenantIDs, deliveryIDs []uuid.UUID, due *time.Time) {
	if len(deliveryIDs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if _, err := l.db.ReleaseLeases(ctx, l.db.Engine(), store.ReleaseLeasesParams{
		TenantIds: tenantIDs, DeliveryIds: deliveryIDs, NodeID: l.nodeID, DueAt: due,
	}); err != nil {
		l.log.Warn("leases not given back, they run out", "leases", len(deliveryIDs), "error", err)
	}
}
