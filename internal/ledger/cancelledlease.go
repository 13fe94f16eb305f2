package ledger

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	cancelledInterval = time.Second
	// A page of ended leases is looked through before the next one is asked for.
	cancelledPage = 200
	// More than any retry policy allows, late and lost ones included.
	maxAttempts = 1000
	// An event that is larger than any that is taken in.
	maxEventBytes = 64 << 20
)

// CancelledLeases sees to it that the attempt which was under way when its delivery was cancelled has a leaf. As a rule the
// node that made it records it. When the lease has ended, by its time or by the death of its node, and no such attempt
// stands in the ledger, then the node is taken for lost and the attempt is recorded with outcome UNKNOWN; nothing follows
// from it. What a slow node records after that stands beside it, as after any takeover.
type CancelledLeases struct {
	db       *store.DB
	nodeID   uuid.UUID
	logID    int32
	log      *slog.Logger
	recorded func(leaves int)
}

// NewCancelledLeases makes the component, which writes to the log with that id. All nodes may run it at once. recorded is
// called after each leaf, and must not block.
func NewCancelledLeases(db *store.DB, nodeID uuid.UUID, logID int32, log *slog.Logger, recorded func(leaves int)) *CancelledLeases {
	return &CancelledLeases{db: db, nodeID: nodeID, logID: logID, log: log, recorded: recorded}
}

// Run looks for ended leases once a second until ctx ends.
func (c *CancelledLeases) Run(ctx context.Context) error {
	ticker := time.NewTicker(cancelledInterval)
	defer ticker.Stop()
	for {
		if err := c.sweep(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("leases of cancelled deliveries not settled, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// sweep settles a page of ended leases, each in a transaction of its own: one that is refused is tried again, and holds up
// none of the others.
func (c *CancelledLeases) sweep(ctx context.Context) error {
	ended, err := c.db.EndedCancelledLeases(ctx, c.db.Engine(), cancelledPage)
	if err != nil {
		return fmt.Errorf("find ended leases: %w", err)
	}
	var errs []error
	for _, lease := range ended {
		if err := c.settle(ctx, lease.TenantID, lease.DeliveryID); err != nil {
			errs = append(errs, fmt.Errorf("settle lease of delivery %s: %w", id.Delivery.Text(lease.DeliveryID), err))
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return errors.Join(errs...)
}

// settle forgets a lease and records its attempt if nobody has, both or neither.
func (c *CancelledLeases) settle(ctx context.Context, tenantID, deliveryID uuid.UUID) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	leaves := 0
	var eventID uuid.UUID
	err := pgx.BeginFunc(ctx, c.db.Engine(), func(tx pgx.Tx) error {
		lease, err := c.db.TakeCancelledLease(ctx, tx, tenantID, deliveryID)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // another node is at it
		}
		if err != nil {
			return fmt.Errorf("take lease: %w", err)
		}
		known, err := c.known(ctx, tx, lease)
		if err != nil || known {
			return err
		}
		result, err := c.lost(ctx, tx, lease)
		if err != nil || result == nil {
			return err
		}
		eventID = result.Duty.Event.ID
		batch, err := newBatch(c.nodeID, c.logID, []Result{*result})
		if err != nil {
			return err
		}
		// The last statement: it locks the log until the commit. A repeat after a lost COMMIT finds no lease any more.
		rows, err := c.db.RecordAttempts(ctx, tx, batch.params)
		leaves = len(rows)
		return err
	})
	if err == nil && leaves > 0 {
		c.log.Info("recorded the attempt of a lost node, whose delivery was cancelled", "event_id", id.Event.Text(eventID), "delivery_id", id.Delivery.Text(deliveryID))
		c.recorded(leaves)
	}
	return err
}

// known reports whether the attempt that was under way is in the ledger.
func (c *CancelledLeases) known(ctx context.Context, tx pgx.Tx, lease store.CancelledLease) (bool, error) {
	rows, err := c.db.AttemptsOfDelivery(ctx, tx, store.AttemptsOfDeliveryParams{
		TenantID: lease.TenantID, DeliveryID: lease.DeliveryID, Since: id.Time(lease.DeliveryID).Add(-clockSlack),
		AfterLeafIndex: -1, MaxRows: maxAttempts,
	})
	if err != nil {
		return false, fmt.Errorf("read attempts: %w", err)
	}
	for _, row := range rows {
		if len(row.Leaf) == 0 && len(rows) > int(lease.Attempts) { // erased: its number is not known any more
			return true, nil
		}
		leaf := new(leafv1.Leaf)
		if err := proto.Unmarshal(row.Leaf, leaf); err != nil {
			return false, fmt.Errorf("decode leaf %d: %w", row.LeafIndex, err)
		}
		if int64(leaf.GetAttempt().GetNumber()) > int64(lease.Attempts) {
			return true, nil
		}
	}
	return false, nil
}

// lost is the attempt of a lost node; nil when the event is gone, without which there can be no leaf. Its verdict is none:
// the queue has no row that it could change.
func (c *CancelledLeases) lost(ctx context.Context, tx pgx.Tx, lease store.CancelledLease) (*Result, error) {
	event, err := c.event(ctx, tx, lease)
	if err != nil || event == nil {
		return nil, err
	}
	destination, err := c.db.GetDestination(ctx, tx, lease.TenantID, lease.DestinationID)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) { // deleted: its URL is not known any more
		return nil, fmt.Errorf("read destination: %w", err)
	}
	return &Result{
		Duty: Duty{
			Event:      event,
			DeliveryID: lease.DeliveryID, DestinationID: lease.DestinationID, Attempts: int(lease.Attempts),
		},
		Attempt: LostAttempt(lease.LeaseOwner, destination.URL),
	}, nil
}

// event is what a leaf says of the lease's event; nil when that is gone.
func (c *CancelledLeases) event(ctx context.Context, tx pgx.Tx, lease store.CancelledLease) (*Event, error) {
	event := &Event{TenantID: lease.TenantID, ID: lease.EventID, EndpointID: lease.EndpointID}
	events, err := c.db.LoadEvents(ctx, tx, []uuid.UUID{lease.TenantID}, []uuid.UUID{lease.EventID}, maxEventBytes)
	if err != nil {
		return nil, fmt.Errorf("load event: %w", err)
	}
	if len(events) > 0 {
		row := events[0]
		event.ReceivedAt, event.Body, event.Preset, event.BodySHA256 = row.ReceivedAt, row.Body, row.Verification, sha256.Sum256(row.Body)
		return event, nil
	}
	row, err := c.db.ErasedEvent(ctx, tx, lease.TenantID, lease.EventID)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && len(row.PayloadSHA256) != sha256.Size {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read erased event: %w", err)
	}
	event.ReceivedAt, event.Preset, event.AbsentBytes = row.ReceivedAt, row.Verification, row.PayloadBytes
	event.BodySHA256 = [sha256.Size]byte(row.PayloadSHA256)
	return event, nil
}

// LostAttempt is what is known of the attempt of a node that was lost before it recorded a result.
func LostAttempt(nodeID uuid.UUID, url string) *Attempt {
	return &Attempt{
		ID: id.New(), NodeID: nodeID, URL: url,
		Outcome: leafv1.Outcome_OUTCOME_UNKNOWN, Failure: leafv1.Failure_FAILURE_WORKER_LOST,
		Diagnosis: "node " + id.Node.Text(nodeID) + " was lost before it recorded a result",
	}
}
