package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/store"
)

// defaultReplayRate is how many deliveries a second a replay makes when its request does not say.
const defaultReplayRate = 100

func (s *deliveryService) ReplayDeadLetters(ctx context.Context, request *kapselv1.ReplayDeadLettersRequest) (*kapselv1.ReplayDeadLettersResponse, error) {
	tenantID := caller(ctx).TenantID
	rate := request.RatePerSecond
	if rate == 0 {
		rate = defaultReplayRate
	}
	response := new(kapselv1.ReplayDeadLettersResponse)
	err := s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		replay, err := ledger.StartReplay(ctx, s.DB.Queries, tx, s.Reader.LogID(), tenantID, request.Filter, rate, request.DryRun)
		if err != nil {
			return err
		}
		response.Replay = describeReplay(replay)
		if request.DryRun { // changes nothing
			return nil
		}
		return s.audit(ctx, tx, tenantID, response.Replay.Id, fmt.Sprintf("of %d dead letters", response.Replay.Matched))
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func (s *deliveryService) GetReplay(ctx context.Context, request *kapselv1.GetReplayRequest) (*kapselv1.GetReplayResponse, error) {
	tenantID := caller(ctx).TenantID
	replayID, err := id.Replay.Parse(request.ReplayId)
	if err != nil {
		return nil, noSuchReplay()
	}
	response := new(kapselv1.GetReplayResponse)
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) (err error) {
		response.Replay, err = s.readReplay(ctx, tx, tenantID, replayID)
		return err
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func (s *deliveryService) ListReplays(ctx context.Context, request *kapselv1.ListReplaysRequest) (*kapselv1.ListReplaysResponse, error) {
	tenantID := caller(ctx).TenantID
	page, err := readPage(request)
	if err != nil {
		return nil, err
	}
	response := new(kapselv1.ListReplaysResponse)
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		rows, err := s.DB.ListReplays(ctx, tx, tenantID, page.before, page.size+1)
		if err != nil {
			return err
		}
		if len(rows) > int(page.size) {
			rows = rows[:page.size]
			response.NextPageToken = page.token(rows[len(rows)-1].ReplayID)
		}
		for _, row := range rows {
			response.Replays = append(response.Replays, describeReplay(row))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func (s *deliveryService) CancelReplay(ctx context.Context, request *kapselv1.CancelReplayRequest) (*kapselv1.CancelReplayResponse, error) {
	tenantID := caller(ctx).TenantID
	replayID, err := id.Replay.Parse(request.ReplayId)
	if err != nil {
		return nil, noSuchReplay()
	}
	response := new(kapselv1.CancelReplayResponse)
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		stopped, err := s.DB.CancelReplay(ctx, tx, tenantID, replayID)
		if err != nil {
			return err
		}
		if response.Replay, err = s.readReplay(ctx, tx, tenantID, replayID); err != nil {
			return err
		}
		if stopped == 0 {
			return refuse(kapselv1.ErrorReason_ERROR_REASON_REPLAY_ENDED, "the replay has ended already")
		}
		return s.audit(ctx, tx, tenantID, request.ReplayId, "")
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func (s *deliveryService) readReplay(ctx context.Context, tx pgx.Tx, tenantID, replayID uuid.UUID) (*kapselv1.Replay, error) {
	row, err := s.DB.GetReplay(ctx, tx, tenantID, replayID)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, noSuchReplay()
	}
	if err != nil {
		return nil, err
	}
	return describeReplay(row), nil
}

// describeReplay makes the resource of a row; that of a dry run has no id.
func describeReplay(row store.Replay) *kapselv1.Replay {
	replay := &kapselv1.Replay{
		Filter: new(kapselv1.DeadLetterFilter), Matched: row.Matched, Replayed: row.Replayed, Skipped: row.Skipped,
		RatePerSecond: row.RatePerSecond, Error: row.Error,
	}
	if err := protojson.Unmarshal(row.Filter, replay.Filter); err != nil {
		replay.Filter = nil // of another version: its error says so
	}
	if row.ReplayID == uuid.Nil {
		return replay
	}
	replay.Id, replay.CreateTime = id.Replay.Text(row.ReplayID), timestamppb.New(row.CreatedAt)
	if row.EndedAt != nil {
		replay.EndTime = timestamppb.New(*row.EndedAt)
	}
	switch row.State {
	case "running":
		replay.State = kapselv1.ReplayState_REPLAY_STATE_RUNNING
	case "completed":
		replay.State = kapselv1.ReplayState_REPLAY_STATE_COMPLETED
	case "cancelled":
		replay.State = kapselv1.ReplayState_REPLAY_STATE_CANCELLED
	}
	return replay
}

func noSuchReplay() *refusal {
	return refuse(kapselv1.ErrorReason_ERROR_REASON_REPLAY_NOT_FOUND, "there is no such replay")
}
