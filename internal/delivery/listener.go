package delivery

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

// Offer is one try of a delivery, to be sent down a stream.
type Offer struct {
	AttemptID uuid.UUID
	Duty      ledger.Duty
	// DedupKey and SourceAddress are the event's, as they are stored.
	DedupKey, SourceAddress string
	Headers                 http.Header

	began time.Time
}

// Deadline is until when to report it.
func (o *Offer) Deadline() time.Time { return o.began.Add(ReportTime) }

// Listener is one open stream of a session.
type Listener struct {
	all                     *Listeners
	tenantID, session       uuid.UUID
	destinationID, streamID uuid.UUID
	maxInFlight             int
	wake                    chan struct{}
	replaced                chan struct{}
	replacing               sync.Once

	mu       sync.Mutex
	inFlight map[uuid.UUID]time.Time // attempt → until when to report
	heard    time.Time               // when something was reported last
}

// replace ends the stream in favour of a newer one.
func (s *Listener) replace() { s.replacing.Do(func() { close(s.replaced) }) }

// Run takes deliveries and gives them to send, until ctx ends, send fails, the session ends, another stream takes over, the
// node stops, or the client is silent: nothing was reported in the time of an attempt, as with a connection that was cut and
// does not know. What went on down that would be lost try by try. Run calls send at least four times a second, often without
// any offers.
func (s *Listener) Run(ctx context.Context, stopping <-chan struct{}, send func([]*Offer) error) error {
	ticker := time.NewTicker(listenInterval)
	defer ticker.Stop()
	for {
		if silent := s.expire(ctx, time.Now()); silent {
			return ErrListenSilent
		}
		offers, err := s.take(ctx)
		switch {
		case errors.Is(err, ErrListenEnded):
			return err
		case err != nil && ctx.Err() == nil:
			s.all.log.Warn("nothing taken for a listening stream, trying again", "destination_id", id.Destination.Text(s.destinationID), "error", err)
		}
		err = send(offers)
		for _, offer := range offers {
			s.all.dispatcher.Unreserve(nil, len(offer.Duty.Event.Body))
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.replaced:
			return ErrListenReplaced
		case <-stopping:
			s.awaitReports(ctx)
			return ErrListenStopping
		case <-s.wake:
		case <-ticker.C:
		}
	}
}

// awaitReports waits for what is in flight, for a short while: a client may report to any node.
func (s *Listener) awaitReports(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lastReports)
	defer cancel()
	for s.room() < s.maxInFlight {
		select {
		case <-ctx.Done():
			return
		case <-s.replaced:
			return
		case <-s.wake:
		}
	}
}

// room is how many more attempts may be in flight.
func (s *Listener) room() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.maxInFlight - len(s.inFlight)
}

// take leases what the session has room for. It goes on when ctx ends: a lease that was taken and not known would have to run out.
func (s *Listener) take(ctx context.Context) ([]*Offer, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	snapshot := s.all.routes.Snapshot()
	destination := snapshot.Destination(s.destinationID)
	if destination == nil && snapshot.Removed(s.destinationID) {
		return nil, ErrListenEnded
	}
	room := min(s.room(), s.all.dispatcher.Room())
	if destination == nil || !destination.Listens || room <= 0 {
		return nil, nil
	}
	rows, err := s.all.db.ClaimListened(ctx, s.all.db.Engine(), store.ClaimListenedParams{
		NodeID: s.all.nodeID, LeaseSeconds: DefaultLease.Seconds(), HeldUntil: HeldUntil(s.destinationID), TenantID: s.tenantID,
		DestinationID: s.destinationID, MaxRows: int32(room), MaxFront: maxListenFront,
		MaxBytes: min(maxListenBytes, s.all.dispatcher.RoomBytes()),
	})
	if err != nil {
		return nil, fmt.Errorf("claim deliveries: %w", err)
	}
	if len(rows) == 0 {
		return nil, nil
	}
	offers, unsent, err := s.offer(ctx, destination, rows)
	moment := HeldUntil(s.destinationID)
	s.all.claimer.putOff(ctx, unsent, &moment)
	return offers, err
}

// offer makes offers of claimed rows, and writes them down. What is unsent, such as payloads that may not be held now, is to
// be given back.
func (s *Listener) offer(ctx context.Context, destination *route.Destination, rows []store.ClaimListenedRow) (offers []*Offer, unsent []store.ClaimDueRow, err error) {
	var all, vanished []store.ClaimDueRow
	written := store.OfferListenedParams{TenantID: s.tenantID, SessionID: s.session, NodeID: s.all.nodeID, ReportSeconds: ReportTime.Seconds()}
	for _, row := range rows {
		claimed := store.ClaimDueRow{TenantID: s.tenantID, DeliveryID: row.DeliveryID, Attempts: row.Attempts}
		all = append(all, claimed)
		switch {
		case !row.Found:
			vanished = append(vanished, claimed)
			continue
		case row.Body == nil:
			unsent = append(unsent, claimed)
			continue
		}
		offer := s.newOffer(destination, row)
		attempt := &ledger.Attempt{
			ID: offer.AttemptID, NodeID: s.all.nodeID, URL: destination.URL, StartedAt: offer.began, RequestHeaders: hashHeaders(offer.Headers),
		}
		offered, err := ledger.EncodeOffer(offer.Duty, attempt)
		if err != nil {
			return nil, all, err
		}
		written.AttemptIds, written.DeliveryIds = append(written.AttemptIds, offer.AttemptID), append(written.DeliveryIds, row.DeliveryID)
		written.Attempts, written.Offered = append(written.Attempts, row.Attempts), append(written.Offered, offered)
		offers = append(offers, offer)
	}
	if err := s.all.claimer.cancelVanished(ctx, vanished); err != nil {
		s.all.log.Warn("deliveries without an event not ended, trying again", "error", err)
		unsent = append(unsent, vanished...)
	}
	if len(offers) == 0 {
		return nil, unsent, nil
	}
	if err := s.all.db.OfferListened(ctx, s.all.db.Engine(), written); err != nil {
		return nil, all, fmt.Errorf("write offered attempts down: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, offer := range offers {
		s.all.dispatcher.reserve(nil, len(offer.Duty.Event.Body))
		s.inFlight[offer.AttemptID] = offer.Deadline()
	}
	return offers, unsent, nil
}

func (s *Listener) newOffer(destination *route.Destination, row store.ClaimListenedRow) *Offer {
	offer := &Offer{AttemptID: id.New(), DedupKey: row.DedupKey, SourceAddress: row.SourceAddress, began: time.Now()}
	offer.Duty = ledger.Duty{DeliveryID: row.DeliveryID, DestinationID: s.destinationID, Attempts: int(row.Attempts), Event: &ledger.Event{
		TenantID: s.tenantID, ID: row.EventID, EndpointID: row.EndpointID, ReceivedAt: row.ReceivedAt, Body: row.Body, Headers: row.Headers,
		ContentType: row.ContentType, Type: row.EventType, Preset: row.Verification, BodySHA256: sha256.Sum256(row.Body),
	}}
	offer.Headers = s.all.dispatcher.sender.headers(Job{Duty: offer.Duty, Destination: destination}, &ledger.Attempt{StartedAt: offer.began})
	return offer
}

// reported makes the room of an attempt free for another one.
func (s *Listener) reported(attemptID uuid.UUID) {
	s.mu.Lock()
	delete(s.inFlight, attemptID)
	s.heard = time.Now()
	s.mu.Unlock()
	poke(s.wake)
}

// expire gives up what was not reported in time. The client is silent if nothing else was since that was sent.
func (s *Listener) expire(ctx context.Context, now time.Time) (silent bool) {
	s.mu.Lock()
	var late []uuid.UUID
	for attemptID, deadline := range s.inFlight {
		if now.After(deadline) {
			late = append(late, attemptID)
			silent = silent || s.heard.Before(deadline.Add(-ReportTime))
		}
	}
	s.mu.Unlock()
	if len(late) == 0 {
		return false
	}
	settled, err := s.settle(ctx, late, func(attempt *ledger.Attempt) {
		attempt.Duration = now.Sub(attempt.StartedAt)
		fail(attempt, leafv1.Failure_FAILURE_TIMEOUT, fmt.Errorf("no result was reported within %v", ReportTime))
	})
	if err != nil {
		s.all.log.Warn("attempts without a report not recorded, trying again", "error", err)
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, attemptID := range late {
		delete(s.inFlight, attemptID)
	}
	return silent && settled == len(late) // others were reported, and this node not told
}

// settle records attempts for which there was no report, unless another node got one. It returns how many there were.
func (s *Listener) settle(ctx context.Context, attemptIDs []uuid.UUID, fill func(*ledger.Attempt)) (int, error) {
	settled, err := s.all.settle(ctx, s.tenantID, s.session, attemptIDs, true)
	if err != nil {
		return 0, err
	}
	for _, o := range settled {
		fill(o.attempt)
		s.all.record(ctx, o, nil)
	}
	return len(settled), nil
}

// Close ends the stream. What was sent and not reported may have arrived: it becomes attempts with outcome UNKNOWN.
func (s *Listener) Close() {
	s.all.mu.Lock()
	delete(s.all.open, s)
	s.all.dispatcher.listened.CompareAndDelete(s.destinationID, s)
	s.all.mu.Unlock()
	s.mu.Lock()
	left := slices.Collect(maps.Keys(s.inFlight))
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
	defer cancel()
	if len(left) > 0 {
		_, err := s.settle(ctx, left, func(attempt *ledger.Attempt) {
			attempt.Outcome, attempt.Failure = leafv1.Outcome_OUTCOME_UNKNOWN, leafv1.Failure_FAILURE_WORKER_LOST
			attempt.Duration = time.Since(attempt.StartedAt)
			attempt.Diagnosis = "the listening stream broke before a result was reported"
		})
		if err != nil {
			s.all.log.Warn("attempts of a broken stream not recorded, they are unknown when their leases run out", "attempts", len(left), "error", err)
		}
	}
	// The session's time without a stream begins now.
	if _, err := s.all.db.TouchListenSessions(ctx, s.all.db.Engine(), []uuid.UUID{s.tenantID}, []uuid.UUID{s.session}, []uuid.UUID{s.streamID}); err != nil {
		s.all.log.Warn("listening session not touched, it ends a little sooner", "error", err)
	}
}
