package delivery

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
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

// Report hands a result to the ledger. recorded is closed when it is committed.
func (l *Listeners) Report(tenantID, session, attemptID uuid.UUID, report Report) (recorded <-chan struct{}, err error) {
	l.mu.Lock()
	listener := l.sessions[session]
	l.mu.Unlock()
	if listener == nil || listener.tenantID != tenantID {
		return nil, ErrNotInFlight
	}
	offer := listener.settle(attemptID)
	if offer == nil {
		return nil, ErrNotInFlight
	}
	attempt := listener.attempt(offer, report.StartedAt, report.Duration)
	switch {
	case report.StatusCode == 0:
		fail(attempt, report.Failure, errors.New(report.Message))
	case report.StatusCode >= 200 && report.StatusCode <= 299:
		attempt.Outcome = leafv1.Outcome_OUTCOME_SUCCEEDED
	default:
		attempt.Outcome, attempt.Failure = leafv1.Outcome_OUTCOME_FAILED, leafv1.Failure_FAILURE_STATUS
		attempt.Diagnosis = fmt.Sprintf("status %d %s", report.StatusCode, http.StatusText(report.StatusCode))
	}
	attempt.StatusCode, attempt.Response = report.StatusCode, report.Response
	done := make(chan struct{})
	listener.record(offer, attempt, func() { close(done) })
	return done, nil
}

// settle takes an attempt out of those in flight, nil when it is not there.
func (s *Listener) settle(attemptID uuid.UUID) *Offer {
	s.mu.Lock()
	defer s.mu.Unlock()
	offer := s.inFlight[attemptID]
	delete(s.inFlight, attemptID)
	select { // there is room for another
	case s.wake <- struct{}{}:
	default:
	}
	return offer
}

// expire gives up what was not reported in time.
func (s *Listener) expire(now time.Time) {
	s.mu.Lock()
	var late []*Offer
	for attemptID, offer := range s.inFlight {
		if now.After(offer.Deadline) {
			late = append(late, offer)
			delete(s.inFlight, attemptID)
		}
	}
	s.mu.Unlock()
	for _, offer := range late {
		attempt := s.attempt(offer, offer.offered, now.Sub(offer.offered))
		fail(attempt, leafv1.Failure_FAILURE_TIMEOUT, fmt.Errorf("no result was reported within %v", ReportTime))
		s.record(offer, attempt, nil)
	}
}

// unknown is what is known of an attempt whose stream broke.
func (s *Listener) unknown(offer *Offer) *ledger.Attempt {
	attempt := ledger.LostAttempt(s.all.nodeID, offer.Job.Destination.URL)
	attempt.ID, attempt.RequestHeaders = offer.AttemptID, hashHeaders(offer.Headers)
	attempt.StartedAt, attempt.Duration = offer.offered, time.Since(offer.offered)
	attempt.Diagnosis = "the listening stream broke before a result was reported"
	return attempt
}

// attempt is what a report is filled into. Whatever the client's clock says, it began between the offer and now.
func (s *Listener) attempt(offer *Offer, startedAt time.Time, duration time.Duration) *ledger.Attempt {
	now := time.Now()
	if startedAt.Before(offer.offered) || startedAt.After(now) {
		startedAt = offer.offered
	}
	return &ledger.Attempt{
		ID: offer.AttemptID, NodeID: s.all.nodeID, URL: offer.Job.Destination.URL, StartedAt: startedAt,
		Duration: min(duration, now.Sub(startedAt)), RequestHeaders: hashHeaders(offer.Headers), Late: now.After(offer.Job.LeaseEnds),
	}
}

// record hands an attempt to the ledger. A session is not disabled: it belongs to who is there and sees its failures.
func (s *Listener) record(offer *Offer, attempt *ledger.Attempt, recorded func()) {
	d := s.all.dispatcher
	verdict := d.judge(offer.Job, attempt)
	verdict.Disable = ledger.Disable{}
	d.log.Debug("listener reported", "event_id", id.Event.Text(offer.Job.Event.ID), "delivery_id", id.Delivery.Text(offer.Job.DeliveryID), "attempt", offer.Job.Attempts+1, "status", attempt.StatusCode)
	d.recorder.Submit(ledger.Result{
		Duty: offer.Job.Duty, Attempt: attempt, Verdict: verdict,
		Recorded: func(int64) {
			d.Unreserve(nil, len(offer.Job.Event.Body))
			if recorded != nil {
				recorded()
			}
		},
	})
}
