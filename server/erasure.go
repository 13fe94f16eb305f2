package server

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

// eraseWait bounds how long EraseEvent waits for the seal of the event's last leaves.
const (
	eraseWait = 15 * time.Second
	erasePoll = 500 * time.Millisecond
)

// EraseEvent erases what can be erased now, and waits for a while for the rest. An event whose payload retention has
// dropped may still have leaves.
func (s *eventService) EraseEvent(ctx context.Context, request *kapselv1.EraseEventRequest) (*kapselv1.EraseEventResponse, error) {
	tenantID := caller(ctx).TenantID
	eventID, err := id.Event.Parse(request.EventId)
	if err != nil {
		return nil, noSuchEvent()
	}
	if _, _, err := s.erased(ctx, tenantID, eventID); err != nil {
		return nil, err
	}
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error { return s.audit(ctx, tx, tenantID, request.EventId, request.Reason) })
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(eraseWait); ; {
		more, err := s.Eraser.EraseEvent(ctx, tenantID, eventID, request.Reason)
		if err != nil {
			return nil, err
		}
		if !more || time.Now().After(deadline) {
			break
		}
		select {
		case <-ctx.Done(): // the duty stands
			return nil, ctx.Err()
		case <-time.After(erasePoll):
		}
	}
	event, leaves, err := s.erased(ctx, tenantID, eventID)
	if err != nil {
		return nil, err
	}
	response := &kapselv1.EraseEventResponse{Event: event}
	for _, leaf := range leaves {
		if leaf.AttemptID == leaf.DeliveryID { // of no delivery
			response.ErasureIds = append(response.ErasureIds, id.Attempt.Text(leaf.AttemptID))
		}
	}
	return response, nil
}

// erased reads an event and its leaves. Of an event that retention has dropped there are only these.
func (s *eventService) erased(ctx context.Context, tenantID, eventID uuid.UUID) (event *kapselv1.Event, leaves []store.Attempt, err error) {
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) (err error) {
		leaves, err = s.DB.LeavesOfEvent(ctx, tx, store.LeavesOfEventParams{
			TenantID: tenantID, EventID: eventID, Since: since(eventID), MaxRows: maxPackages,
		})
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	response, err := s.GetEvent(ctx, &kapselv1.GetEventRequest{EventId: id.Event.Text(eventID)})
	if r := new(refusal); errors.As(err, &r) && len(leaves) > 0 {
		return &kapselv1.Event{Id: id.Event.Text(eventID), PayloadGone: true}, leaves, nil
	}
	return response.GetEvent(), leaves, err
}
