package server

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

// maxAttempts of a delivery: more than any retry policy allows, late and lost ones included.
const maxAttempts = 1000

// readDelivery puts a delivery together from where it is: the queue while it is live, else a dead letter, a cancellation
// or the attempt that succeeded.
func (a *api) readDelivery(ctx context.Context, tx pgx.Tx, tenantID, deliveryID uuid.UUID) (*kapselv1.Delivery, error) {
	queued, err := a.DB.QueuedDelivery(ctx, tx, tenantID, deliveryID)
	live := err == nil
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, err
	}
	rows, err := a.DB.AttemptsOfDelivery(ctx, tx, store.AttemptsOfDeliveryParams{
		TenantID: tenantID, DeliveryID: deliveryID, Since: since(deliveryID), AfterLeafIndex: -1, MaxRows: maxAttempts,
	})
	if err != nil {
		return nil, err
	}
	d := &kapselv1.Delivery{
		Id: id.Delivery.Text(deliveryID), Attempts: int32(len(rows)), CreateTime: timestamppb.New(id.Time(deliveryID)),
	}
	for _, row := range rows {
		attempt, err := a.describeAttempt(row)
		if err != nil {
			return nil, err
		}
		d.LastAttempt = attempt
		d.EventId, d.EndpointId, d.DestinationId = attempt.EventId, attempt.EndpointId, attempt.DestinationId
		if attempt.Outcome == leafv1.Outcome_OUTCOME_SUCCEEDED && !attempt.Late {
			d.State, d.CloseTime = kapselv1.DeliveryState_DELIVERY_STATE_SUCCEEDED, attempt.RecordTime
		}
	}
	if live {
		return d, a.describeLive(ctx, tx, d, queued)
	}
	if repeats, err := a.DB.GetRedelivery(ctx, tx, tenantID, deliveryID); err == nil && repeats != nil {
		d.ReplayOf = id.Delivery.Text(*repeats)
	} else if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, err
	}
	return d, a.describeClosed(ctx, tx, tenantID, deliveryID, d)
}

func (a *api) describeLive(ctx context.Context, tx pgx.Tx, d *kapselv1.Delivery, row store.QueuedDeliveryRow) error {
	d.EventId, d.EndpointId = id.Event.Text(row.EventID), id.Endpoint.Text(row.EndpointID)
	d.State, d.CloseTime = kapselv1.DeliveryState_DELIVERY_STATE_PENDING, nil
	if row.ReplayOf != nil {
		d.ReplayOf = id.Delivery.Text(*row.ReplayOf)
	}
	if row.DestinationID != nil {
		d.DestinationId = id.Destination.Text(*row.DestinationID)
		held, err := a.DB.HeldDestinations(ctx, tx, row.TenantID, []uuid.UUID{*row.DestinationID})
		if err != nil {
			return err
		}
		if len(held) > 0 {
			d.State, d.StateDetail = kapselv1.DeliveryState_DELIVERY_STATE_HELD, held[0].StateDetail
			if d.StateDetail == "" {
				d.StateDetail = "its destination is " + held[0].State
			}
		}
	}
	if row.LeaseOwner != nil && row.DueAt.After(time.Now()) {
		d.State, d.StateDetail = kapselv1.DeliveryState_DELIVERY_STATE_IN_FLIGHT, ""
	}
	switch {
	case d.State != kapselv1.DeliveryState_DELIVERY_STATE_PENDING:
	case !delivery.Held(row.DueAt):
		d.NextAttemptTime = timestamppb.New(row.DueAt)
	case row.DestinationID != nil:
		return a.describeWaiting(ctx, tx, d, row.TenantID, *row.DestinationID)
	}
	return nil
}

// describeWaiting says when a delivery without a time of its own is sent at the earliest. What is behind others of its key, or
// comes back by and by since its destination works again, is sent at no time that is known.
func (a *api) describeWaiting(ctx context.Context, tx pgx.Tx, d *kapselv1.Delivery, tenantID, destinationID uuid.UUID) error {
	health, err := a.DB.DestinationHealth(ctx, tx, tenantID, destinationID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	if kapselv1.BreakerState(health.Breaker) == kapselv1.BreakerState_BREAKER_STATE_OPEN {
		d.NextAttemptTime, d.StateDetail = timestamp(health.ProbeAt), "its destination failed too often: nothing is sent before it is tried again"
	}
	return nil
}

// describeClosed describes a delivery that is not live. A cancellation stands whatever came of an attempt that was under
// way then: a closed delivery never changes its state.
func (a *api) describeClosed(ctx context.Context, tx pgx.Tx, tenantID, deliveryID uuid.UUID, d *kapselv1.Delivery) error {
	cancelled, err := a.DB.GetCancellation(ctx, tx, tenantID, deliveryID)
	if err == nil {
		return a.describeCancelled(ctx, tx, d, cancelled)
	}
	if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	if d.State == kapselv1.DeliveryState_DELIVERY_STATE_SUCCEEDED {
		return nil
	}
	dead, err := a.DB.GetDeadLetter(ctx, tx, tenantID, deliveryID)
	if errors.Is(err, pgx.ErrNoRows) || err == nil && dead.DestinationID == nil { // an event that was given up as a whole had no delivery
		return noSuchDelivery()
	}
	if err != nil {
		return err
	}
	d.EventId, d.EndpointId = id.Event.Text(dead.EventID), id.Endpoint.Text(dead.EndpointID)
	d.DestinationId = id.Destination.Text(*dead.DestinationID)
	d.State, d.CloseTime = kapselv1.DeliveryState_DELIVERY_STATE_DEAD_LETTERED, timestamppb.New(dead.DeadAt)
	return nil
}

func (a *api) describeCancelled(ctx context.Context, tx pgx.Tx, d *kapselv1.Delivery, row store.Cancellation) error {
	d.EventId, d.DestinationId = id.Event.Text(row.EventID), id.Destination.Text(row.DestinationID)
	d.State, d.CloseTime = kapselv1.DeliveryState_DELIVERY_STATE_CANCELLED, timestamppb.New(row.CancelledAt)
	d.StateDetail = row.Reason
	event, err := a.DB.GetEvent(ctx, tx, row.TenantID, row.EventID)
	if err == nil {
		d.EndpointId = id.Endpoint.Text(event.EndpointID)
	} else if !errors.Is(err, pgx.ErrNoRows) {
		return err
	}
	return nil
}

// describeAttempt makes the resource of a row of the ledger: what the leaf says, and what stands beside it.
func (a *api) describeAttempt(row store.Attempt) (*kapselv1.Attempt, error) {
	attempt := &kapselv1.Attempt{
		Id: id.Attempt.Text(row.AttemptID), DeliveryId: id.Delivery.Text(row.DeliveryID), EventId: id.Event.Text(row.EventID),
		Outcome: leafv1.Outcome(row.Outcome), Diagnosis: row.Diagnosis, ResponseExcerpt: row.ResponseExcerpt,
		RecordTime: timestamppb.New(row.RecordedAt), LogId: logIDText(row.LogID), LeafIndex: row.LeafIndex,
	}
	if head, known := a.Heads.Latest(); known && row.LogID == a.Reader.LogID() {
		attempt.Sealed = row.LeafIndex < head.Size
	}
	leaf := new(leafv1.Leaf)
	if err := proto.Unmarshal(row.Leaf, leaf); err != nil {
		return nil, err
	}
	l := leaf.GetAttempt()
	if l == nil {
		return attempt, nil // erased
	}
	attempt.EndpointId, attempt.DestinationId = id.Endpoint.Text(idOf(l.EndpointId)), id.Destination.Text(idOf(l.DestinationId))
	attempt.NodeId = id.Node.Text(idOf(l.NodeId))
	attempt.Number, attempt.Failure, attempt.StatusCode = int32(l.Number), l.Failure, int32(l.StatusCode)
	attempt.StartTime, attempt.Duration, attempt.Url = l.StartedAt, l.Duration, l.Url
	attempt.PayloadSha256, attempt.RequestHeadersSha256 = l.PayloadSha256, l.RequestHeadersSha256
	attempt.ResponseSha256, attempt.ResponseBytes, attempt.ResponseTruncated = l.ResponseSha256, int64(l.ResponseBytes), l.ResponseTruncated
	attempt.Late = l.Late
	return attempt, nil
}

func logIDText(logID int32) string { return strconv.FormatInt(int64(logID), 10) }
