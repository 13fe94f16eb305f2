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
	params := store.ReleaseLeasesParams{NodeID: l.nodeID}
	for _, job := range jobs {
		params.TenantIds = append(params.TenantIds, job.Event.TenantID)
		params.DeliveryIds = append(params.DeliveryIds, job.DeliveryID)
		params.LostOwners = append(params.LostOwners, job.LostOwner)
	}
	l.release(ctx, params)
}

func (l *Leases) release(ctx context.Context, params store.ReleaseLeasesParams) {
	if len(params.DeliveryIds) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	if _, err := l.db.ReleaseLeases(ctx, l.db.Engine(), params); err != nil {
		l.log.Warn("leases not given back, they run out", "leases", len(params.DeliveryIds), "error", err)
	}
}
