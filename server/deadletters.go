package server

import (
	"context"
	"math"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/store"
)

// ListDeadLetters pages by leaf index. The way in which an attempt failed stands in leaves alone: a page that filters by
// it may be short.
func (s *deliveryService) ListDeadLetters(ctx context.Context, request *kapselv1.ListDeadLettersRequest) (*kapselv1.ListDeadLettersResponse, error) {
	tenantID := caller(ctx).TenantID
	page, err := readPage(request)
	if err != nil {
		return nil, err
	}
	before := page.number()
	if before < 0 {
		before = math.MaxInt64
	}
	response := new(kapselv1.ListDeadLettersResponse)
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		rows, last, next, more, err := ledger.SelectDeadLetters(tenantID, request.Filter).Page(ctx, s.DB.Queries, tx, before, int(page.size))
		if err != nil {
			return err
		}
		if more {
			response.NextPageToken = page.numberToken(next)
		}
		for _, row := range rows {
			letter, err := s.describeDeadLetter(row, last)
			if err != nil {
				return err
			}
			response.DeadLetters = append(response.DeadLetters, letter)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func (a *api) describeDeadLetter(row store.ListDeadLettersRow, last map[uuid.UUID]store.Attempt) (*kapselv1.DeadLetter, error) {
	letter := &kapselv1.DeadLetter{
		DeliveryId: id.Delivery.Text(row.DeadLetterID), EventId: id.Event.Text(row.EventID), EndpointId: id.Endpoint.Text(row.EndpointID),
		Reason: leafv1.DeadLetterReason(row.Reason), Diagnosis: row.Diagnosis, Attempts: row.Attempts,
		DeadTime: timestamppb.New(row.DeadAt), EventType: row.EventType, LogId: logIDText(row.LogID), LeafIndex: row.LeafIndex,
	}
	if row.DestinationID != nil {
		letter.DestinationId = id.Destination.Text(*row.DestinationID)
	}
	if row.ReplayedBy != uuid.Nil {
		letter.ReplayedBy = id.Delivery.Text(row.ReplayedBy)
	}
	attempt, found := last[row.DeadLetterID]
	if !found {
		return letter, nil
	}
	var err error
	letter.LastAttempt, err = a.describeAttempt(attempt)
	return letter, err
}
