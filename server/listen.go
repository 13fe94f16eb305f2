package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// maxListenSessions a tenant.
	maxListenSessions   = 10
	defaultListenFlight = 10
)

// listenService brings deliveries to machines that no URL reaches.
type listenService struct {
	kapselv1connect.UnimplementedListenServiceHandler
	*api
}

func (s *listenService) Listen(ctx context.Context, request *kapselv1.ListenRequest, stream kapselv1connect.ListenServiceListenServerStream) error {
	tenantID := caller(ctx).TenantID
	open := s.create
	if request.SessionId != "" {
		open = s.resume
	}
	session, maxInFlight, err := open(ctx, tenantID, request)
	if err != nil {
		return err
	}
	s.applyRoutes(ctx)
	sessionID, _ := id.Session.Parse(session.Id)
	destinationID, _ := id.Destination.Parse(session.DestinationId)
	listener, err := s.Listeners.Open(tenantID, sessionID, destinationID, maxInFlight)
	if err != nil {
		return &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_OVERLOADED, retry: overloadedRetry, message: "the node has as many listening streams as it may have: come again"}
	}
	defer listener.Close()
	l := &listenStream{listenService: s, stream: stream, tenantID: tenantID, lasting: lasting(ctx)}
	if err := l.send(&kapselv1.ListenResponse{Update: &kapselv1.ListenResponse_Session{Session: session}}); err != nil {
		return err
	}
	return l.run(ctx, listener)
}

// create makes a session and its destination.
func (s *listenService) create(ctx context.Context, tenantID uuid.UUID, request *kapselv1.ListenRequest) (*kapselv1.ListenSession, int, error) {
	sessionID, destinationID := id.New(), id.New()
	session := &kapselv1.ListenSession{Id: id.Session.Text(sessionID), DestinationId: id.Destination.Text(destinationID)}
	maxInFlight := request.MaxInFlight
	if maxInFlight == 0 {
		maxInFlight = defaultListenFlight
	}
	destinations := &destinationService{api: s.api}
	settings := destinationSettings{Destination: &kapselv1.Destination{
		DisplayName: "kapsel listen", Url: request.ForwardUrl, Filter: &kapselv1.Filter{EventTypes: request.EventTypes},
		Signing:        &kapselv1.Signing{Scheme: kapselv1.SigningScheme_SIGNING_SCHEME_V1},
		RetryPolicy:    new(kapselv1.RetryPolicy),
		ConnectTimeout: durationpb.New(defaultConnectTimeout), Timeout: durationpb.New(delivery.ReportTime),
		MaxInFlight: maxInFlight, ForwardedHeaders: []string{"*"},
	}}
	if request.DisplayName != "" {
		settings.DisplayName = request.DisplayName
	}
	if settings.Url == "" {
		settings.Url = "listen://" + session.Id
	}
	value, generated, err := settings.chooseSecret("")
	if err != nil {
		return nil, 0, err
	}
	session.Secret = generated
	row, err := settings.row()
	if err != nil {
		return nil, 0, err
	}
	row.TenantID, row.DestinationID = tenantID, destinationID
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		endpointIDs, err := s.listened(ctx, tx, tenantID, request.EndpointIds)
		if err != nil {
			return err
		}
		row.EndpointID = endpointIDs[0]
		if len(request.EndpointIds) == 0 {
			endpointIDs = []uuid.UUID{}
		}
		quota, err := s.lockQuota(ctx, tx, tenantID)
		if err != nil {
			return err
		}
		if quota.MaxDestinations != nil && quota.Destinations >= int64(*quota.MaxDestinations) {
			return refuse(kapselv1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED, "a session counts as a destination; the tenant may have %d, and has them: delete one, or ask the operator", *quota.MaxDestinations)
		}
		if sessions, err := s.DB.CountListenSessions(ctx, tx, tenantID); err != nil {
			return err
		} else if sessions >= maxListenSessions {
			return refuse(kapselv1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED, "the tenant has %d listening sessions already: delete the destination of one, or wait 10 minutes after its stream ended", maxListenSessions)
		}
		if err := s.awaitUpgrade(ctx, tx); err != nil {
			return err
		}
		if _, err := s.DB.CreateDestination(ctx, tx, row); store.IsReferenceError(err) {
			return noSuchEndpoint()
		} else if err != nil {
			return err
		}
		if err := destinations.addDestinationSecret(ctx, tx, tenantID, destinationID, value); err != nil {
			return err
		}
		err = s.DB.CreateListenSession(ctx, tx, store.CreateListenSessionParams{
			TenantID: tenantID, SessionID: sessionID, DestinationID: destinationID, EndpointIds: endpointIDs, MaxInFlight: maxInFlight,
		})
		if err != nil {
			return err
		}
		return s.audit(ctx, tx, tenantID, session.DestinationId, "opened "+session.Id)
	})
	return session, int(maxInFlight), err
}

// listened are the endpoints of a new session, of which each must be the tenant's. Without any given it is the newest one:
// a destination needs one that it stands under.
func (s *listenService) listened(ctx context.Context, tx pgx.Tx, tenantID uuid.UUID, texts []string) ([]uuid.UUID, error) {
	if len(texts) == 0 {
		rows, err := s.DB.ListEndpoints(ctx, tx, tenantID, uuid.Max, 1)
		if err != nil {
			return nil, err
		}
		if len(rows) == 0 {
			return nil, refuse(kapselv1.ErrorReason_ERROR_REASON_ENDPOINT_NOT_FOUND, "there is no endpoint to listen to: make one first")
		}
		return []uuid.UUID{rows[0].EndpointID}, nil
	}
	var endpointIDs []uuid.UUID
	for _, text := range texts {
		endpointID, err := id.Endpoint.Parse(text)
		if err != nil {
			return nil, noSuchEndpoint()
		}
		if _, err := s.DB.GetEndpoint(ctx, tx, tenantID, endpointID); errors.Is(err, pgx.ErrNoRows) {
			return nil, noSuchEndpoint()
		} else if err != nil {
			return nil, err
		}
		endpointIDs = append(endpointIDs, endpointID)
	}
	return endpointIDs, nil
}

func (s *listenService) resume(ctx context.Context, tenantID uuid.UUID, request *kapselv1.ListenRequest) (*kapselv1.ListenSession, int, error) {
	sessionID, err := id.Session.Parse(request.SessionId)
	if err != nil {
		return nil, 0, noSuchSession()
	}
	var row store.ResumeListenSessionRow
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) (err error) {
		row, err = s.DB.ResumeListenSession(ctx, tx, tenantID, sessionID)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, 0, noSuchSession()
	}
	return &kapselv1.ListenSession{Id: request.SessionId, DestinationId: id.Destination.Text(row.DestinationID)}, int(row.MaxInFlight), err
}

func noSuchSession() *refusal {
	return refuse(kapselv1.ErrorReason_ERROR_REASON_LISTEN_SESSION_NOT_FOUND, "there is no such listening session, or it has ended: open a new one")
}

// listenStream is one Listen call.
type listenStream struct {
	*listenService
	stream   kapselv1connect.ListenServiceListenServerStream
	tenantID uuid.UUID
	lasting  *lastingStream
}

func (l *listenStream) run(ctx context.Context, listener *delivery.Listener) error {
	last := time.Now()
	err := listener.Run(ctx, func(offers []*delivery.Offer) error {
		select {
		case <-l.Stopping:
			return &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_SHUTTING_DOWN, retry: overloadedRetry, message: "the node is stopping: resume the session"}
		default:
		}
		if len(offers) == 0 {
			if time.Since(last) < heartbeatInterval {
				return nil
			}
			last = time.Now()
			return l.send(&kapselv1.ListenResponse{Update: &kapselv1.ListenResponse_Heartbeat{Heartbeat: &kapselv1.Heartbeat{Time: timestamppb.Now()}}})
		}
		last = time.Now()
		return l.offer(ctx, offers)
	})
	switch {
	case errors.Is(err, delivery.ErrListenEnded):
		return noSuchSession()
	case errors.Is(err, delivery.ErrListenReplaced):
		return refuse(kapselv1.ErrorReason_ERROR_REASON_LISTEN_SESSION_NOT_FOUND, "the session was resumed by another stream")
	}
	return err
}

// offer sends deliveries with what is known of their events.
func (l *listenStream) offer(ctx context.Context, offers []*delivery.Offer) error {
	events := make(map[string]*kapselv1.Event, len(offers))
	ids := make([]uuid.UUID, len(offers))
	for i, offer := range offers {
		ids[i] = offer.Job.Event.ID
	}
	err := l.DB.AsTenant(ctx, l.tenantID, func(tx pgx.Tx) error {
		rows, err := l.DB.EventsByID(ctx, tx, l.tenantID, ids)
		if err != nil {
			return err
		}
		fates, err := l.fates(ctx, tx, l.tenantID, ids)
		if err != nil {
			return err
		}
		for _, row := range rows {
			event := describeEvent(store.ListEventsRow(row), fates)
			events[event.Id] = event
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, offer := range offers {
		job := offer.Job
		err := l.send(&kapselv1.ListenResponse{Update: &kapselv1.ListenResponse_Delivery{Delivery: &kapselv1.ListenDelivery{
			AttemptId: id.Attempt.Text(offer.AttemptID), DeliveryId: id.Delivery.Text(job.DeliveryID), Event: events[id.Event.Text(job.Event.ID)],
			Number: int32(job.Attempts + 1), Headers: headersOf(offer), Payload: job.Event.Body, ReportDeadline: timestamppb.New(offer.Deadline),
		}}})
		if err != nil {
			return err
		}
	}
	return nil
}

// headersOf are the headers of the request, in one order.
func headersOf(offer *delivery.Offer) (headers []*kapselv1.Header) {
	for name, values := range offer.Headers {
		for _, value := range values {
			h := &kapselv1.Header{Name: name, Value: strings.ToValidUTF8(value, "\uFFFD")}
			if h.Value != value {
				h.RawValue = []byte(value)
			}
			headers = append(headers, h)
		}
	}
	slices.SortStableFunc(headers, func(a, b *kapselv1.Header) int { return strings.Compare(a.Name, b.Name) })
	return headers
}

func (l *listenStream) send(message *kapselv1.ListenResponse) error {
	l.lasting.extend()
	return l.stream.Send(message)
}
