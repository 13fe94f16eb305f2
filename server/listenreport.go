package server

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/store"
)

func (s *listenService) Report(ctx context.Context, request *kapselv1.ReportRequest) (*kapselv1.ReportResponse, error) {
	tenantID := caller(ctx).TenantID
	sessionID, err := id.Session.Parse(request.SessionId)
	if err != nil {
		return nil, noSuchSession()
	}
	attemptID, err := id.Attempt.Parse(request.AttemptId)
	if err != nil {
		return nil, noSuchAttempt()
	}
	recorded, err := s.Listeners.Report(tenantID, sessionID, attemptID, readReport(request))
	repeated := errors.Is(err, delivery.ErrNotInFlight)
	if !repeated {
		select {
		case <-recorded:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	attempt, err := s.reported(ctx, tenantID, sessionID, attemptID)
	if err != nil {
		return nil, err
	}
	if repeated && !sameResult(request, attempt) {
		return nil, refuse(kapselv1.ErrorReason_ERROR_REASON_REPORT_TOO_LATE, "the attempt was recorded already, with another result")
	}
	return &kapselv1.ReportResponse{Attempt: attempt}, nil
}

func readReport(request *kapselv1.ReportRequest) delivery.Report {
	report := delivery.Report{StartedAt: request.StartTime.AsTime(), Duration: request.Duration.AsDuration()}
	if failure := request.GetFailure(); failure != nil {
		report.Failure, report.Message = failure.Failure, failure.Message
		return report
	}
	answer := request.GetAnswer()
	report.StatusCode = int(answer.GetStatusCode())
	report.Response = &ledger.Response{
		SHA256: [32]byte(answer.GetBodySha256()), Bytes: answer.GetBodyBytes(), Truncated: answer.GetTruncated(), Excerpt: answer.GetBodyExcerpt(),
	}
	return report
}

// reported is the attempt of a session as it was recorded.
func (s *listenService) reported(ctx context.Context, tenantID, sessionID, attemptID uuid.UUID) (*kapselv1.Attempt, error) {
	var destinationID uuid.UUID
	var row store.Attempt
	err := s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) (err error) {
		if destinationID, err = s.DB.GetListenSession(ctx, tx, tenantID, sessionID); errors.Is(err, pgx.ErrNoRows) {
			return noSuchSession()
		} else if err != nil {
			return err
		}
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
	if err == nil && attempt.DestinationId != id.Destination.Text(destinationID) {
		return nil, noSuchAttempt()
	}
	return attempt, err
}

// sameResult says whether a report is of what was recorded.
func sameResult(request *kapselv1.ReportRequest, attempt *kapselv1.Attempt) bool {
	if failure := request.GetFailure(); failure != nil {
		return attempt.StatusCode == 0 && attempt.Failure == failure.Failure
	}
	return attempt.StatusCode == request.GetAnswer().StatusCode
}
