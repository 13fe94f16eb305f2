package server

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/id"
)

const (
	// healthMinutes is how many whole minutes before the present one the figures cover.
	healthMinutes = 4
	// What a node wrote of its attempts under way holds for so long: it writes more often while there are any.
	inFlightFresh = 30 * time.Second
)

func (s *destinationService) GetDestinationHealth(ctx context.Context, request *kapselv1.GetDestinationHealthRequest) (*kapselv1.GetDestinationHealthResponse, error) {
	tenantID := caller(ctx).TenantID
	destinationID, err := id.Destination.Parse(request.DestinationId)
	if err != nil {
		return nil, noSuchDestination()
	}
	health := &kapselv1.DestinationHealth{Breaker: kapselv1.BreakerState_BREAKER_STATE_CLOSED}
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		_, err := s.DB.GetDestination(ctx, tx, tenantID, destinationID)
		if errors.Is(err, pgx.ErrNoRows) {
			return noSuchDestination()
		}
		if err != nil {
			return err
		}
		if err := s.readHealth(ctx, tx, tenantID, destinationID, health); err != nil {
			return err
		}
		return s.readTraffic(ctx, tx, tenantID, destinationID, health)
	})
	if err != nil {
		return nil, err
	}
	waiting, oldest, err := s.Backlog.Estimate(ctx, destinationID)
	if err != nil {
		return nil, err
	}
	health.BacklogEstimate = waiting
	if !oldest.IsZero() {
		health.OldestDueTime = timestamppb.New(oldest)
	}
	return &kapselv1.GetDestinationHealthResponse{Health: health}, nil
}

// readHealth fills in the breaker, and successes and failures over all time.
func (s *destinationService) readHealth(ctx context.Context, tx pgx.Tx, tenantID, destinationID uuid.UUID, health *kapselv1.DestinationHealth) error {
	row, err := s.DB.DestinationHealth(ctx, tx, tenantID, destinationID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // nothing was sent yet
	}
	if err != nil {
		return err
	}
	health.Breaker, health.ConsecutiveFailures = kapselv1.BreakerState(row.Breaker), row.ConsecutiveFailures
	health.FailingSince, health.LastSuccessTime = timestamp(row.FailingSince), timestamp(row.LastSuccessAt)
	if health.Breaker == kapselv1.BreakerState_BREAKER_STATE_OPEN {
		health.ProbeTime = timestamp(row.ProbeAt)
	}
	if row.LastFailureID == nil {
		return nil
	}
	attempt, err := s.DB.GetAttempt(ctx, tx, tenantID, *row.LastFailureID, since(*row.LastFailureID))
	if errors.Is(err, pgx.ErrNoRows) {
		return nil // it is not recorded yet
	}
	if err != nil {
		return err
	}
	health.LastFailure, err = s.describeAttempt(attempt)
	return err
}

// readTraffic adds up what all nodes sent in the last minutes.
func (s *destinationService) readTraffic(ctx context.Context, tx pgx.Tx, tenantID, destinationID uuid.UUID, health *kapselv1.DestinationHealth) error {
	now := time.Now()
	from := now.Truncate(time.Minute).Add(-healthMinutes * time.Minute)
	rows, err := s.DB.DestinationTraffic(ctx, tx, tenantID, destinationID, from)
	if err != nil {
		return err
	}
	health.Window = durationpb.New(now.Sub(from))
	var durations delivery.Durations
	newest := uuid.Nil // node whose newest row was seen
	for _, row := range rows {
		health.Succeeded += row.Succeeded
		health.Failed += row.Failed
		durations.Merge(row.Durations)
		if row.NodeID != newest {
			newest = row.NodeID
			if now.Sub(row.WrittenAt) < inFlightFresh {
				health.InFlight += row.InFlight
			}
		}
	}
	if len(rows) > 0 {
		health.DurationP50, health.DurationP99 = durationpb.New(durations.Below(0.5)), durationpb.New(durations.Below(0.99))
	}
	return nil
}

func timestamp(t *time.Time) *timestamppb.Timestamp {
	if t == nil {
		return nil
	}
	return timestamppb.New(*t)
}
