package server

import (
	"context"
	"errors"
	"time"

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
	recorded, err := s.Listeners.Report(ctx, tenantID, sessionID, attemptID, readReport(request))
	switch {
	case errors.Is(err, delivery.ErrNotInFlight): // it was reported before, or its time is over
	case err != nil:
		return nil, err
	default:
		select {
		case <-recorded:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s.awaitReported(ctx, tenantID, sessionID, attemptID, request)
}

// reportPoll is how often a report looks for the result that another one gave, while that is being recorded.
const reportPoll = 20 * time.Millisecond

// awaitReported answers with what was recorded, if that is what is reported.
func (s *listenService) awaitReported(ctx context.Context, tenantID, sessionID, attemptID uuid.UUID, request *kapselv1.ReportRequest) (*kapselv1.ReportResponse, error) {
	for {
		attempt, recording, err := s.reported(ctx, tenantID, sessionID, attemptID)
		switch {
		case err != nil:
			return nil, err
		case attempt != nil && sameResult(request, attempt):
			return &kapselv1.ReportResponse{Attempt: attempt}, nil
		case attempt != nil:
			return nil, refuse(kapselv1.ErrorReason_ERROR_REASON_REPORT_TOO_LATE, "the attempt was recorded already, with another result")
		case !recording:
			return nil, refuse(kapselv1.ErrorReason_ERROR_REASON_REPORT_TOO_LATE, "the time to report is over, or the node that sent the delivery was lost: it is tried again")
		}
		select {
		case <-time.After(reportPoll):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
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

// reported is an attempt of a session as it was recorded; nil when it was not, and then whether it is going to be.
func (s *listenService) reported(ctx context.Context, tenantID, sessionID, attemptID uuid.UUID) (attempt *kapselv1.Attempt, recording bool, err error) {
	var destinationID uuid.UUID
	var row store.Attempt
	offered, recorded := true, true
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) (err error) {
		if destinationID, err = s.DB.GetListenSession(ctx, tx, tenantID, sessionID); errors.Is(err, pgx.ErrNoRows) {
			return noSuchSession()
		} else if err != nil {
			return err
		}
		// In this order: what is not being recorded any more when the first one looks, the second one finds.
		if recording, err = s.DB.ListenedAttempt(ctx, tx, tenantID, attemptID, sessionID); errors.Is(err, pgx.ErrNoRows) {
			offered = false
		} else if err != nil {
			return err
		}
		if row, err = s.DB.GetAttempt(ctx, tx, tenantID, attemptID, since(attemptID)); errors.Is(err, pgx.ErrNoRows) {
			recorded = false
			return nil
		}
		return err
	})
	switch {
	case err != nil:
		return nil, false, err
	case !recorded && offered:
		return nil, recording, nil
	case !recorded || row.Outcome == 0: // the leaf of a dead letter
		return nil, false, noSuchAttempt()
	}
	attempt, err = s.describeAttempt(row)
	if err == nil && attempt.DestinationId != id.Destination.Text(destinationID) {
		return nil, false, noSuchAttempt()
	}
	return attempt, false, err
}

// sameResult says whether a report is of what was recorded.
func sameResult(request *kapselv1.ReportRequest, attempt *kapselv1.Attempt) bool {
	if failure := request.GetFailure(); failure != nil {
		return attempt.StatusCode == 0 && attempt.Failure == failure.Failure
	}
	return attempt.StatusCode == request.GetAnswer().StatusCode
}
