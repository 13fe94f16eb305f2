package server

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

// deliveryService reads deliveries, their attempts and dead letters, and steers them.
type deliveryService struct {
	kapselv1connect.UnimplementedDeliveryServiceHandler
	*api
}

func (s *deliveryService) GetDelivery(ctx context.Context, request *kapselv1.GetDeliveryRequest) (*kapselv1.GetDeliveryResponse, error) {
	tenantID := caller(ctx).TenantID
	deliveryID, err := id.Delivery.Parse(request.DeliveryId)
	if err != nil {
		return nil, noSuchDelivery()
	}
	response := new(kapselv1.GetDeliveryResponse)
	err = s.DB.ReadAsTenant(ctx, tenantID, func(tx pgx.Tx) (err error) {
		response.Delivery, err = s.readDelivery(ctx, tx, tenantID, deliveryID)
		return err
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func (s *deliveryService) ListAttempts(ctx context.Context, request *kapselv1.ListAttemptsRequest) (*kapselv1.ListAttemptsResponse, error) {
	tenantID := caller(ctx).TenantID
	page, err := readPage(request)
	if err != nil {
		return nil, err
	}
	response := new(kapselv1.ListAttemptsResponse)
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		rows, err := s.attemptRows(ctx, tx, tenantID, request, page)
		if err != nil {
			return err
		}
		if len(rows) > int(page.size) {
			rows = rows[:page.size]
			response.NextPageToken = page.numberToken(rows[len(rows)-1].LeafIndex)
		}
		for _, row := range rows {
			attempt, err := s.describeAttempt(row)
			if err != nil {
				return err
			}
			response.Attempts = append(response.Attempts, attempt)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// attemptRows reads one more row than the page has. What has no attempts must at least exist.
func (s *deliveryService) attemptRows(ctx context.Context, tx pgx.Tx, tenantID uuid.UUID, request *kapselv1.ListAttemptsRequest, page page) ([]store.Attempt, error) {
	if request.GetEventId() != "" {
		eventID, err := id.Event.Parse(request.GetEventId())
		if err != nil {
			return nil, noSuchEvent()
		}
		rows, err := s.DB.AttemptsOfEvent(ctx, tx, store.AttemptsOfEventParams{
			TenantID: tenantID, EventID: eventID, Since: since(eventID), AfterLeafIndex: page.number(), MaxRows: page.size + 1,
		})
		if err != nil || len(rows) > 0 {
			return rows, err
		}
		if _, err := s.DB.GetEvent(ctx, tx, tenantID, eventID); errors.Is(err, pgx.ErrNoRows) {
			return nil, noSuchEvent()
		} else if err != nil {
			return nil, err
		}
		return nil, nil
	}
	deliveryID, err := id.Delivery.Parse(request.GetDeliveryId())
	if err != nil {
		return nil, noSuchDelivery()
	}
	rows, err := s.DB.AttemptsOfDelivery(ctx, tx, store.AttemptsOfDeliveryParams{
		TenantID: tenantID, DeliveryID: deliveryID, Since: since(deliveryID), AfterLeafIndex: page.number(), MaxRows: page.size + 1,
	})
	if err != nil || len(rows) > 0 {
		return rows, err
	}
	_, err = s.readDelivery(ctx, tx, tenantID, deliveryID)
	return nil, err
}

func (s *deliveryService) GetAttempt(ctx context.Context, request *kapselv1.GetAttemptRequest) (*kapselv1.GetAttemptResponse, error) {
	tenantID := caller(ctx).TenantID
	attemptID, err := id.Attempt.Parse(request.AttemptId)
	if err != nil {
		return nil, noSuchAttempt()
	}
	var row store.Attempt
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) (err error) {
		row, err = s.DB.GetAttempt(ctx, tx, tenantID, attemptID, since(attemptID))
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) || err == nil && row.Outcome == 0 { // 0: the leaf of a dead letter
		return nil, noSuchAttempt()
	}
	if err != nil {
		return nil, err
	}
	attempt, err := s.describeAttempt(row)
	if err != nil {
		return nil, err
	}
	return &kapselv1.GetAttemptResponse{Attempt: attempt}, nil
}

func noSuchDelivery() *refusal {
	return refuse(kapselv1.ErrorReason_ERROR_REASON_DELIVERY_NOT_FOUND, "there is no such delivery")
}

func noSuchAttempt() *refusal {
	return refuse(kapselv1.ErrorReason_ERROR_REASON_ATTEMPT_NOT_FOUND, "there is no such attempt")
}
