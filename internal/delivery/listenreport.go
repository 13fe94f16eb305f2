package delivery

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

// Report is what a client says of an attempt that it made.
type Report struct {
	StartedAt time.Time
	Duration  time.Duration
	// StatusCode and Response are the app's answer, or else
	StatusCode int
	Response   *ledger.Response
	// Failure says why there is none, and Message the same for people.
	Failure leafv1.Failure
	Message string
}

// Report hands a result to the ledger, of an attempt that this node sent or another one. recorded is closed when it is
// committed. The error is ErrNotInFlight when there is no such attempt, its time is over, or its result was taken before.
func (l *Listeners) Report(ctx context.Context, tenantID, session, attemptID uuid.UUID, report Report) (recorded <-chan struct{}, err error) {
	settled, err := l.settle(ctx, tenantID, session, []uuid.UUID{attemptID}, false)
	if err != nil {
		return nil, err
	}
	if len(settled) == 0 {
		return nil, ErrNotInFlight
	}
	o := settled[0]
	l.freeRoom(o)
	report.fill(o.attempt, time.Now())
	done := make(chan struct{})
	l.record(ctx, o, func() { close(done) })
	return done, nil
}

// freeRoom tells the stream that sent an attempt.
func (l *Listeners) freeRoom(o offered) {
	if o.attempt.NodeID != l.nodeID {
		l.dispatcher.notices.note(o.duty.DestinationID.String(), noticeSettled, o.attempt.ID.String())
	} else if listener, open := l.dispatcher.listened.Load(o.duty.DestinationID); open {
		listener.(*Listener).reported(o.attempt.ID)
	}
}

// fill fills in what was reported. Whatever the client's clock says, the attempt began between the offer and now.
func (r Report) fill(attempt *ledger.Attempt, now time.Time) {
	if r.StartedAt.After(attempt.StartedAt) && !r.StartedAt.After(now) {
		attempt.StartedAt = r.StartedAt
	}
	attempt.Duration = max(0, min(r.Duration, now.Sub(attempt.StartedAt)))
	attempt.StatusCode, attempt.Response = r.StatusCode, r.Response
	switch {
	case r.StatusCode == 0:
		fail(attempt, r.Failure, errors.New(r.Message))
	case r.StatusCode >= 200 && r.StatusCode <= 299:
		attempt.Outcome = leafv1.Outcome_OUTCOME_SUCCEEDED
	default:
		attempt.Outcome, attempt.Failure = leafv1.Outcome_OUTCOME_FAILED, leafv1.Failure_FAILURE_STATUS
		attempt.Diagnosis = fmt.Sprintf("status %d %s", r.StatusCode, http.StatusText(r.StatusCode))
	}
}

// offered is an attempt whose result this node has to record.
type offered struct {
	duty    ledger.Duty
	attempt *ledger.Attempt
}

// settle takes over attempts of a session, each of which one node gets once, with its lease. It goes on when ctx ends: an
// attempt that was taken over and not recorded would wait for its lease to end.
func (l *Listeners) settle(ctx context.Context, tenantID, session uuid.UUID, attemptIDs []uuid.UUID, overdue bool) ([]offered, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	rows, err := l.db.SettleListened(ctx, l.db.Engine(), store.SettleListenedParams{
		TenantID: tenantID, SessionID: session, AttemptIds: attemptIDs, NodeID: l.nodeID, Overdue: overdue,
	})
	if err != nil {
		return nil, fmt.Errorf("settle attempts of a listening session: %w", err)
	}
	var settled []offered
	for _, row := range rows {
		duty, attempt, err := ledger.DecodeOffer(row.Offered)
		if err != nil {
			return nil, fmt.Errorf("attempt %s: %w", id.Attempt.Text(row.AttemptID), err)
		}
		settled = append(settled, offered{duty, attempt})
	}
	return settled, nil
}

// record hands an attempt to the ledger.
func (l *Listeners) record(ctx context.Context, o offered, recorded func()) {
	l.log.Debug("listener reported", "event_id", id.Event.Text(o.duty.Event.ID), "delivery_id", id.Delivery.Text(o.duty.DeliveryID),
		"attempt", o.duty.Attempts+1, "status", o.attempt.StatusCode)
	l.dispatcher.recorder.Submit(ledger.Result{Duty: o.duty, Attempt: o.attempt, Verdict: l.judge(ctx, o), Recorded: func(int64) {
		if recorded != nil {
			recorded()
		}
	}})
}

// judge decides what follows. A session is not disabled: it belongs to who is there and sees its failures.
func (l *Listeners) judge(ctx context.Context, o offered) ledger.Verdict {
	if o.attempt.Outcome == leafv1.Outcome_OUTCOME_SUCCEEDED {
		return ledger.Verdict{Delivered: true}
	}
	destination, err := l.destination(ctx, o.duty.DestinationID)
	if err != nil {
		l.log.Warn("destination of a listening session not found, its delivery is tried again", "destination_id", id.Destination.Text(o.duty.DestinationID), "error", err)
		return ledger.Verdict{RetryAt: time.Now()}
	}
	if destination == nil {
		return destinationGone
	}
	verdict := l.dispatcher.judge(Job{Duty: o.duty, Destination: destination}, o.attempt)
	verdict.Disable = ledger.Disable{}
	return verdict
}

// destination is a session's, nil when it was deleted. One that another node made a moment ago is looked for.
func (l *Listeners) destination(ctx context.Context, destinationID uuid.UUID) (*route.Destination, error) {
	snapshot := l.routes.Snapshot()
	if snapshot.Destination(destinationID) == nil && !snapshot.Removed(destinationID) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
		defer cancel()
		if err := l.routes.Refresh(ctx); err != nil {
			return nil, err
		}
		snapshot = l.routes.Snapshot()
	}
	return snapshot.Destination(destinationID), nil
}
