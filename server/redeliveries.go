package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/filter"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

// RetryDelivery makes a live delivery due, and repeats a closed one. One that is being sent already is left to it.
func (s *deliveryService) RetryDelivery(ctx context.Context, request *kapselv1.RetryDeliveryRequest) (*kapselv1.RetryDeliveryResponse, error) {
	tenantID := caller(ctx).TenantID
	deliveryID, err := id.Delivery.Parse(request.DeliveryId)
	if err != nil {
		return nil, noSuchDelivery()
	}
	response := new(kapselv1.RetryDeliveryResponse)
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		// Locked before it is read: else a live one might be closed in between, and not be tried again.
		live, err := s.DB.LockDelivery(ctx, tx, tenantID, deliveryID)
		if err == nil && live.DestinationID == nil { // the dead letter of a defect is under way
			return noSuchDelivery()
		}
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		isLive := err == nil
		present, err := s.readDelivery(ctx, tx, tenantID, deliveryID)
		if err != nil {
			return err
		}
		destinationID, _ := id.Destination.Parse(present.DestinationId)
		destination, err := s.DB.GetDestination(ctx, tx, tenantID, destinationID)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if err != nil || destination.State != stateEnabled {
			return refuse(kapselv1.ErrorReason_ERROR_REASON_DESTINATION_NOT_ENABLED, "its destination is not enabled: resume it, or replay the event to another one")
		}
		eventID, _ := id.Event.Parse(present.EventId)
		event, err := s.DB.GetEvent(ctx, tx, tenantID, eventID)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && event.Erased {
			return payloadGone()
		}
		if err != nil {
			return err
		}
		if isLive {
			err = s.DB.MakeDue(ctx, tx, tenantID, deliveryID)
		} else {
			repeated := deliveryID
			deliveryID = id.New()
			err = s.DB.MakeRedelivery(ctx, tx, store.MakeRedeliveryParams{
				TenantID: tenantID, DeliveryID: deliveryID, EventID: eventID, EndpointID: event.EndpointID,
				DestinationID: destinationID, ReplayOf: repeated,
			})
		}
		if err != nil {
			return err
		}
		if response.Delivery, err = s.readDelivery(ctx, tx, tenantID, deliveryID); err != nil {
			return err
		}
		detail := "made due"
		if !isLive {
			detail = "repeats " + request.DeliveryId
		}
		return s.audit(ctx, tx, tenantID, response.Delivery.Id, detail)
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// CancelDelivery waits for nobody: the node that may be sending it finds its row gone, and records what came of it. If it
// does not live to do that, ledger.CancelledLeases records that the attempt was made.
func (s *deliveryService) CancelDelivery(ctx context.Context, request *kapselv1.CancelDeliveryRequest) (*kapselv1.CancelDeliveryResponse, error) {
	tenantID := caller(ctx).TenantID
	deliveryID, err := id.Delivery.Parse(request.DeliveryId)
	if err != nil {
		return nil, noSuchDelivery()
	}
	response := new(kapselv1.CancelDeliveryResponse)
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		live, err := s.DB.LockDelivery(ctx, tx, tenantID, deliveryID)
		if errors.Is(err, pgx.ErrNoRows) {
			if _, err := s.readDelivery(ctx, tx, tenantID, deliveryID); err != nil {
				return err
			}
			return refuse(kapselv1.ErrorReason_ERROR_REASON_DELIVERY_CLOSED, "the delivery is closed already")
		}
		if err != nil {
			return err
		}
		if live.DestinationID == nil {
			return noSuchDelivery()
		}
		if err := s.DB.CancelDelivery(ctx, tx, request.Reason, tenantID, deliveryID); err != nil {
			return err
		}
		if response.Delivery, err = s.readDelivery(ctx, tx, tenantID, deliveryID); err != nil {
			return err
		}
		return s.audit(ctx, tx, tenantID, request.DeliveryId, request.Reason)
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// ReplayEvent makes a delivery for each destination that was asked for, else for each whose filter takes the event now.
// Those to a destination that is paused or disabled are held.
func (s *eventService) ReplayEvent(ctx context.Context, request *kapselv1.ReplayEventRequest) (*kapselv1.ReplayEventResponse, error) {
	tenantID := caller(ctx).TenantID
	eventID, err := id.Event.Parse(request.EventId)
	if err != nil {
		return nil, noSuchEvent()
	}
	if len(request.DestinationIds) == 0 { // another node may have changed the filters a moment ago
		if err := s.Routes.Refresh(ctx); err != nil {
			return nil, err
		}
	}
	response := new(kapselv1.ReplayEventResponse)
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		event, err := s.DB.GetEvent(ctx, tx, tenantID, eventID)
		if errors.Is(err, pgx.ErrNoRows) {
			return noSuchEvent()
		}
		if err != nil {
			return err
		}
		if event.Erased {
			return payloadGone()
		}
		destinationIDs, err := s.replayTo(ctx, tx, event, request.DestinationIds)
		if err != nil {
			return err
		}
		newest, err := s.newestDeliveries(ctx, tx, tenantID, eventID)
		if err != nil {
			return err
		}
		for _, destinationID := range destinationIDs {
			deliveryID := id.New()
			err := s.DB.MakeRedelivery(ctx, tx, store.MakeRedeliveryParams{
				TenantID: tenantID, DeliveryID: deliveryID, EventID: eventID, EndpointID: event.EndpointID,
				DestinationID: destinationID, ReplayOf: newest[id.Destination.Text(destinationID)],
			})
			if err != nil {
				return err
			}
			delivery, err := s.readDelivery(ctx, tx, tenantID, deliveryID)
			if err != nil {
				return err
			}
			response.Deliveries = append(response.Deliveries, delivery)
		}
		return s.audit(ctx, tx, tenantID, request.EventId, fmt.Sprintf("made %d deliveries", len(response.Deliveries)))
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// replayTo are the destinations that a replay of an event goes to.
func (s *eventService) replayTo(ctx context.Context, tx pgx.Tx, event store.GetEventRow, chosen []string) ([]uuid.UUID, error) {
	var ids []uuid.UUID
	for _, text := range chosen {
		destinationID, _ := id.Destination.Parse(text)
		destination, err := s.DB.GetDestination(ctx, tx, event.TenantID, destinationID)
		if errors.Is(err, pgx.ErrNoRows) || err == nil && destination.EndpointID != event.EndpointID {
			return nil, refuse(kapselv1.ErrorReason_ERROR_REASON_DESTINATION_NOT_FOUND, "the event's endpoint has no destination %s", text)
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, destinationID)
	}
	endpoint := s.Routes.Snapshot().Endpoint(event.EndpointID)
	if len(chosen) > 0 || endpoint == nil {
		return ids, nil
	}
	payload, err := s.DB.GetEventPayload(ctx, tx, event.TenantID, event.EventID)
	if err != nil {
		return nil, err
	}
	header := make(map[string][]string)
	for _, h := range describeHeaders(event.Headers) {
		header[h.Name] = append(header[h.Name], h.Value)
	}
	shown := filter.NewEvent(event.EventType, header, payload.Body)
	for _, destination := range endpoint.Destinations {
		if destination.Filter.MatchesType(event.EventType) && (!destination.Filter.HasExpression() || destination.Filter.Meets(shown)) {
			ids = append(ids, destination.ID)
		}
	}
	return ids, nil
}

// newestDeliveries are the youngest deliveries of an event, by destination.
func (a *api) newestDeliveries(ctx context.Context, tx pgx.Tx, tenantID, eventID uuid.UUID) (map[string]uuid.UUID, error) {
	ids, err := a.deliveriesOf(ctx, tx, tenantID, eventID)
	if err != nil {
		return nil, err
	}
	newest := make(map[string]uuid.UUID)
	for _, deliveryID := range ids {
		delivery, err := a.readDelivery(ctx, tx, tenantID, deliveryID)
		if err != nil {
			return nil, err
		}
		if _, found := newest[delivery.DestinationId]; !found {
			newest[delivery.DestinationId] = deliveryID
		}
	}
	return newest, nil
}
