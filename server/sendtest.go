package server

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

// The test event that is sent when the caller gives none.
const (
	testPayload     = `{"type":"kapsel.test","message":"This is a test event."}`
	testContentType = "application/json"
)

func (s *destinationService) SendTest(ctx context.Context, request *kapselv1.SendTestRequest) (*kapselv1.SendTestResponse, error) {
	tenantID := caller(ctx).TenantID
	destination, err := s.findDestination(ctx, tenantID, request.DestinationId)
	if err != nil {
		return nil, err
	}
	payload, contentType := request.Payload, request.ContentType
	if len(payload) == 0 {
		payload = []byte(testPayload)
	}
	if contentType == "" {
		contentType = testContentType
	}
	began := time.Now()
	attemptID, err := s.Tester.Test(ctx, destination, contentType, bytes.Clone(payload), s.auditEntry(ctx, tenantID, request.DestinationId, ""))
	if store.IsReferenceError(err) { // it was deleted meanwhile
		return nil, noSuchDestination()
	}
	if err != nil {
		return nil, err
	}
	response := new(kapselv1.SendTestResponse)
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		row, err := s.DB.GetAttempt(ctx, tx, tenantID, attemptID, began.Add(-clockSlack))
		if err != nil {
			return err
		}
		response.Attempt, err = s.describeAttempt(row)
		return err
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// findDestination returns the caller's destination as deliveries use it. A snapshot that does not have it yet is read anew.
func (s *destinationService) findDestination(ctx context.Context, tenantID uuid.UUID, text string) (*route.Destination, error) {
	destinationID, err := id.Destination.Parse(text)
	if err != nil {
		return nil, noSuchDestination()
	}
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		_, err := s.DB.GetDestination(ctx, tx, tenantID, destinationID)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, noSuchDestination()
	}
	if err != nil {
		return nil, err
	}
	// What was changed on another node a moment ago is tested as it is now.
	if err := s.Routes.Refresh(ctx); err != nil {
		return nil, err
	}
	if destination := s.Routes.Snapshot().Destination(destinationID); destination != nil {
		return destination, nil
	}
	return nil, noSuchDestination()
}
