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
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	eraserInterval = time.Second
	// One erasure names no more leaves than the contract says.
	maxErasedLeaves = 1000
	// A step of a tenant's erasure holds its locks for some hundred milliseconds.
	eraserEvents     = 200
	eraserDeliveries = 500
	eraserStretch    = 20_000
	// unsealedWait is how long a leaf waits for its seal, roughly.
	unsealedWait = 2 * time.Second
	// failedWait is how long a duty waits whose step failed: what fails each time holds up no other one.
	failedWait = time.Minute
	// erasureGrace is how long after a request the attempts that were under way then may still be recorded: far above the
	// longest lease.
	erasureGrace = 10 * time.Minute
	// fanOutTime is far above what passes between the making of an event's id and of its first deliveries' ids.
	fanOutTime   = 10 * time.Second
	erasedReason = "its event was erased"
)

// Eraser carries out erasures: it cancels what is still to be delivered, blanks payloads and the bytes of sealed leaves, and
// writes a leaf that names them, step by step, each step one transaction. All nodes may run it at once.
//
// An attempt that is under way when its event is erased gets its leaf first, as any other, and that leaf's bytes go later: so
// a duty is looked at again until nothing can come any more.
type Eraser struct {
	db       *store.DB
	nodeID   uuid.UUID
	logID    int32
	log      *slog.Logger
	recorded func(leaves int)
}

// NewEraser makes an eraser of the log with that id. recorded is called after each leaf, and must not block.
func NewEraser(db *store.DB, nodeID uuid.UUID, logID int32, log *slog.Logger, recorded func(leaves int)) *Eraser {
	return &Eraser{db: db, nodeID: nodeID, logID: logID, log: log, recorded: recorded}
}

// Run looks for duties once a second until ctx ends.
func (e *Eraser) Run(ctx context.Context) error {
	ticker := time.NewTicker(eraserInterval)
	defer ticker.Stop()
	for {
		for worked := true; worked && ctx.Err() == nil; {
			var err error
			if worked, err = e.next(ctx); err != nil {
				if ctx.Err() == nil {
					e.log.Warn("step of an erasure failed, trying again later", "error", err)
				}
				break
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// RequestTenant makes the duty to erase all payloads and leaf bytes of a tenant, in the caller's transaction (of the
// engine). The tenant must not take in or deliver anything from now on. TenantErased tells when it is done.
func (e *Eraser) RequestTenant(ctx context.Context, tx store.DBTX, tenantID uuid.UUID, reason string) error {
	if err := e.db.RequestErasure(ctx, tx, tenantID, uuid.Nil, reason); err != nil {
		return fmt.Errorf("request erasure of a tenant: %w", err)
	}
	return nil
}

// TenantErased reports whether all data of a tenant is erased, ten minutes after the request at the earliest: until then
// an attempt that was under way may still be recorded.
func (e *Eraser) TenantErased(ctx context.Context, tenantID uuid.UUID) (bool, error) {
	duty, err := e.db.GetErasure(ctx, e.db.Engine(), tenantID, uuid.Nil)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	return err == nil && duty.FinishedAt != nil, err
}

// EraseEvent erases an event as far as that can be done now, and leaves the rest to Run. more says that there is a rest.
// Calling it again goes on with it.
func (e *Eraser) EraseEvent(ctx context.Context, tenantID, eventID uuid.UUID, reason string) (more bool, err error) {
	if err := e.db.RequestErasure(ctx, e.db.Engine(), tenantID, eventID, reason); err != nil {
		return false, fmt.Errorf("request erasure of an event: %w", err)
	}
	for again := true; again; {
		var wait time.Duration
		_, err := e.inStep(ctx, func(tx pgx.Tx) (s step, err error) {
			duty, err := e.db.LockErasure(ctx, tx, tenantID, eventID)
			if err != nil {
				return s, err
			}
			s, err = e.advance(ctx, tx, duty)
			wait = s.wait
			return s, err
		})
		if err != nil {
			return false, err
		}
		again, more = wait == 0, wait <= unsealedWait
	}
	return more, nil
}

// step is what one transaction came to.
type step struct {
	leaves int           // that were written
	wait   time.Duration // until the duty is to be looked at again
}

// next makes a step of the duty that is due.
func (e *Eraser) next(ctx context.Context) (worked bool, err error) {
	var taken store.Erasure
	worked, err = e.inStep(ctx, func(tx pgx.Tx) (_ step, err error) {
		if taken, err = e.db.TakeErasure(ctx, tx); err != nil {
			return step{}, err
		}
		return e.advance(ctx, tx, taken)
	})
	if err == nil || taken.TenantID == uuid.Nil {
		return worked, err
	}
	err = fmt.Errorf("%s, %s: %w", id.Tenant.Text(taken.TenantID), id.Event.Text(taken.EventID), err)
	if putOff := e.db.PutOffErasure(ctx, e.db.Engine(), failedWait.Seconds(), taken.TenantID, taken.EventID); putOff != nil {
		err = errors.Join(err, fmt.Errorf("put it off: %w", putOff))
	}
	return false, err
}

func (e *Eraser) inStep(ctx context.Context, f func(tx pgx.Tx) (step, error)) (worked bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	var done step
	err = pgx.BeginFunc(ctx, e.db.Engine(), func(tx pgx.Tx) (err error) {
		done, err = f(tx)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("erase: %w", err)
	}
	if done.leaves > 0 {
		e.recorded(done.leaves)
	}
	return true, nil
}

// advance makes a step of a duty and notes how far it is.
func (e *Eraser) advance(ctx context.Context, tx pgx.Tx, duty store.Erasure) (step, error) {
	// The size before the leaves: what is below it is sealed.
	progress, err := e.db.LogProgress(ctx, tx, e.logID)
	if err != nil {
		return step{}, fmt.Errorf("read progress of log %d: %w", e.logID, err)
	}
	late := time.Since(duty.RequestedAt) > erasureGrace
	var s step
	if duty.EventID == uuid.Nil {
		s, err = e.tenantStep(ctx, tx, &duty, progress.TreeSize, late)
	} else {
		s, err = e.eventStep(ctx, tx, duty, progress.TreeSize)
	}
	if err != nil {
		return s, err
	}
	finished := s.wait > unsealedWait && late
	err = e.db.AdvanceErasure(ctx, tx, store.AdvanceErasureParams{
		TenantID: duty.TenantID, EventID: duty.EventID, AfterEvent: duty.AfterEvent, AfterIndex: duty.AfterIndex,
		WaitSeconds: s.wait.Seconds(), Finished: finished,
	})
	if err != nil {
		return s, fmt.Errorf("note progress of an erasure: %w", err)
	}
	if finished {
		e.log.Info("erased", "tenant_id", id.Tenant.Text(duty.TenantID), "event_id", id.Event.Text(duty.EventID))
	}
	return s, nil
}

// eventStep cancels, blanks the payload, and erases the leaves that are sealed.
func (e *Eraser) eventStep(ctx context.Context, tx pgx.Tx, duty store.Erasure, sealed int64) (step, error) {
	queued, err := e.db.QueuedDeliveries(ctx, tx, store.QueuedDeliveriesParams{
		TenantID: duty.TenantID, EventIds: []uuid.UUID{duty.EventID}, OldestEventID: duty.EventID,
		EndID: id.Floor(id.Time(duty.EventID).Add(fanOutTime)),
	})
	if err != nil {
		return step{}, fmt.Errorf("find live deliveries: %w", err)
	}
	for _, row := range queued {
		if row.DestinationID == nil { // the dead letter of a defect is about to be written, from the payload
			return step{wait: unsealedWait}, nil
		}
		if err := e.db.CancelDelivery(ctx, tx, erasedReason, duty.TenantID, row.DeliveryID); err != nil {
			return step{}, fmt.Errorf("cancel delivery: %w", err)
		}
	}
	payloads, err := e.db.EraseEvents(ctx, tx, duty.TenantID, []uuid.UUID{duty.EventID})
	if err != nil {
		return step{}, fmt.Errorf("erase payload: %w", err)
	}
	leaves, err := e.db.LeavesOfEventToErase(ctx, tx, store.LeavesOfEventToEraseParams{
		TenantID: duty.TenantID, EventID: duty.EventID, Since: id.Time(duty.EventID).Add(-clockSlack), MaxRows: maxErasedLeaves,
	})
	if err != nil {
		return step{}, fmt.Errorf("find leaves: %w", err)
	}
	var chosen chosenLeaves
	for _, leaf := range leaves {
		if leaf.LeafIndex < sealed {
			chosen.add(leaf.LeafIndex, leaf.RecordedAt)
		}
	}
	s := step{wait: erasureGrace + unsealedWait}
	switch {
	case len(chosen.indexes) == maxErasedLeaves:
		s.wait = 0
	case len(chosen.indexes) < len(leaves):
		s.wait = unsealedWait
	}
	if payloads > 0 || len(chosen.indexes) > 0 {
		s.leaves = 1
		return s, e.write(ctx, tx, duty, chosen)
	}
	return s, nil
}

// tenantStep makes one step on the way from the queue over the events to the leaves.
func (e *Eraser) tenantStep(ctx context.Context, tx pgx.Tx, duty *store.Erasure, sealed int64, late bool) (step, error) {
	cancelled, err := e.db.CancelDeliveriesOfTenant(ctx, tx, "its tenant was erased", duty.TenantID, eraserDeliveries)
	if err != nil {
		return step{}, fmt.Errorf("cancel deliveries: %w", err)
	}
	if cancelled > 0 {
		return step{}, nil
	}
	if !late { // what is still to be recorded names the payloads
		queued, err := e.db.CountUndeliveredOfTenant(ctx, tx, duty.TenantID)
		if err != nil {
			return step{}, fmt.Errorf("count queue rows: %w", err)
		}
		held, err := e.db.CountCancelledLeases(ctx, tx, duty.TenantID)
		if err != nil {
			return step{}, fmt.Errorf("count leases: %w", err)
		}
		if queued+held > 0 {
			return step{wait: unsealedWait}, nil
		}
	}
	events, err := e.db.EventsOfTenant(ctx, tx, duty.TenantID, duty.AfterEvent, eraserEvents)
	if err != nil {
		return step{}, fmt.Errorf("find events: %w", err)
	}
	if len(events) > 0 {
		duty.AfterEvent = events[len(events)-1]
		payloads, err := e.db.EraseEvents(ctx, tx, duty.TenantID, events)
		if err != nil || payloads == 0 {
			return step{}, err
		}
		return step{leaves: 1}, e.write(ctx, tx, *duty, chosenLeaves{})
	}
	return e.tenantLeaves(ctx, tx, duty, sealed)
}

// tenantLeaves erases the tenant's leaves in the next stretch of the log.
func (e *Eraser) tenantLeaves(ctx context.Context, tx pgx.Tx, duty *store.Erasure, sealed int64) (step, error) {
	end := min(sealed, duty.AfterIndex+1+eraserStretch)
	leaves, err := e.db.LeavesOfTenantToErase(ctx, tx, store.LeavesOfTenantToEraseParams{
		LogID: e.logID, TenantID: duty.TenantID, AfterIndex: duty.AfterIndex, BeforeIndex: end, MaxRows: maxErasedLeaves,
	})
	if err != nil {
		return step{}, fmt.Errorf("find leaves: %w", err)
	}
	var chosen chosenLeaves
	for _, leaf := range leaves {
		chosen.add(leaf.LeafIndex, leaf.RecordedAt)
	}
	duty.AfterIndex = max(duty.AfterIndex, end-1)
	if len(leaves) == maxErasedLeaves {
		duty.AfterIndex = leaves[len(leaves)-1].LeafIndex
	}
	var s step
	if duty.AfterIndex+1 >= sealed {
		s.wait = erasureGrace + unsealedWait // one more look when nothing can come any more
	}
	if len(chosen.indexes) > 0 {
		s.leaves = 1
		return s, e.write(ctx, tx, *duty, chosen)
	}
	return s, nil
}

// chosenLeaves are leaves to erase, and the days in which they are.
type chosenLeaves struct {
	indexes  []int64
	from, to time.Time
}

func (c *chosenLeaves) add(index int64, recordedAt time.Time) {
	c.indexes = append(c.indexes, index)
	if c.from.IsZero() || recordedAt.Before(c.from) {
		c.from = recordedAt
	}
	if recordedAt.After(c.to) {
		c.to = recordedAt
	}
}

// write erases leaves and records that, the last statement of its transaction.
func (e *Eraser) write(ctx context.Context, tx pgx.Tx, duty store.Erasure, chosen chosenLeaves) error {
	erasureID, eventID := id.New(), duty.EventID
	leaf := &leafv1.Erasure{
		ErasureId: erasureID[:], TenantId: duty.TenantID[:], ErasedAt: timestamppb.Now(), NodeId: e.nodeID[:],
		LeafIndexes: make([]uint64, len(chosen.indexes)),
	}
	if eventID != uuid.Nil {
		leaf.EventId = eventID[:]
	} else {
		eventID = erasureID
	}
	if duty.Reason != "" {
		digest := sha256.Sum256([]byte(duty.Reason))
		leaf.ReasonSha256 = digest[:]
	}
	for i, index := range chosen.indexes {
		leaf.LeafIndexes[i] = uint64(index)
	}
	data, err := EncodeErasure(leaf)
	if err != nil {
		return err
	}
	indexes := chosen.indexes
	if indexes == nil {
		indexes = []int64{}
	}
	_, err = e.db.EraseLeaves(ctx, tx, store.EraseLeavesParams{
		LogID: e.logID, TenantID: duty.TenantID, EventID: eventID, LeafIndexes: indexes, RecordedFrom: chosen.from, RecordedTo: chosen.to,
		ErasureID: erasureID, Leaf: data, Reason: duty.Reason,
	})
	if err != nil {
		return fmt.Errorf("erase %d leaves: %w", len(indexes), err)
	}
	return nil
}
