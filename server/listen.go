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

func (s *listenService) Listen(ctx context.Context, request *kapselv1.ListenRequest, messages kapselv1connect.ListenServiceListenServerStream) error {
	begin := s.create
	if request.SessionId != "" {
		begin = s.resume
	}
	stream := delivery.Stream{TenantID: caller(ctx).TenantID, ID: id.New()}
	secret, err := begin(ctx, request, &stream)
	if err != nil {
		return err
	}
	s.applyRoutes(ctx)
	listener, err := s.Listeners.Open(stream)
	if err != nil {
		return &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_OVERLOADED, retry: overloadedRetry, message: "the node has as many listening streams as it may have: come again"}
	}
	defer listener.Close()
	l := &listenStream{listenService: s, messages: messages, lasting: lasting(ctx)}
	session := &kapselv1.ListenSession{Id: id.Session.Text(stream.SessionID), DestinationId: id.Destination.Text(stream.DestinationID), Secret: secret}
	if err := l.send(&kapselv1.ListenResponse{Update: &kapselv1.ListenResponse_Session{Session: session}}); err != nil {
		return err
	}
	return l.run(ctx, listener)
}

// create makes a session and its destination. It fills in stream, and returns the secret.
func (s *listenService) create(ctx context.Context, request *kapselv1.ListenRequest, stream *delivery.Stream) (secret string, err error) {
	stream.SessionID, stream.DestinationID = id.New(), id.New()
	tenantID, maxInFlight := stream.TenantID, request.MaxInFlight
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
	stream.MaxInFlight = int(maxInFlight)
	if request.DisplayName != "" {
		settings.DisplayName = request.DisplayName
	}
	if settings.Url == "" {
		settings.Url = "listen://" + id.Session.Text(stream.SessionID)
	}
	value, secret, err := settings.chooseSecret("")
	if err != nil {
		return "", err
	}
	row, err := settings.row()
	if err != nil {
		return "", err
	}
	row.TenantID, row.DestinationID = tenantID, stream.DestinationID
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
		if err := destinations.addDestinationSecret(ctx, tx, tenantID, stream.DestinationID, value); err != nil {
			return err
		}
		err = s.DB.CreateListenSession(ctx, tx, store.CreateListenSessionParams{
			TenantID: tenantID, SessionID: stream.SessionID, DestinationID: stream.DestinationID, EndpointIds: endpointIDs, MaxInFlight: maxInFlight,
			StreamID: stream.ID,
		})
		if err != nil {
			return err
		}
		return s.audit(ctx, tx, tenantID, id.Destination.Text(stream.DestinationID), "opened "+id.Session.Text(stream.SessionID))
	})
	return secret, err
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

// resume makes stream the newest one of its session.
func (s *listenService) resume(ctx context.Context, request *kapselv1.ListenRequest, stream *delivery.Stream) (_ string, err error) {
	if stream.SessionID, err = id.Session.Parse(request.SessionId); err != nil {
		return "", noSuchSession()
	}
	var row store.ResumeListenSessionRow
	err = s.DB.AsTenant(ctx, stream.TenantID, func(tx pgx.Tx) (err error) {
		row, err = s.DB.ResumeListenSession(ctx, tx, stream.ID, stream.TenantID, stream.SessionID)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return "", noSuchSession()
	}
	stream.DestinationID, stream.MaxInFlight = row.DestinationID, int(row.MaxInFlight)
	return "", err
}

func noSuchSession() *refusal {
	return refuse(kapselv1.ErrorReason_ERROR_REASON_LISTEN_SESSION_NOT_FOUND, "there is no such listening session, or it has ended: open a new one")
}

// listenStream is one Listen call.
type listenStream struct {
	*listenService
	messages kapselv1connect.ListenServiceListenServerStream
	lasting  *lastingStream
}

func (l *listenStream) run(ctx context.Context, listener *delivery.Listener) error {
	last := time.Now()
	err := listener.Run(ctx, l.Stopping, func(offers []*delivery.Offer) error {
		if len(offers) == 0 && time.Since(last) < heartbeatInterval {
			return nil
		}
		last = time.Now()
		if len(offers) == 0 {
			return l.send(&kapselv1.ListenResponse{Update: &kapselv1.ListenResponse_Heartbeat{Heartbeat: &kapselv1.Heartbeat{Time: timestamppb.Now()}}})
		}
		for _, offer := range offers {
			if err := l.send(&kapselv1.ListenResponse{Update: &kapselv1.ListenResponse_Delivery{Delivery: describeOffer(offer)}}); err != nil {
				return err
			}
		}
		return nil
	})
	switch {
	case errors.Is(err, delivery.ErrListenStopping):
		return &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_SHUTTING_DOWN, retry: overloadedRetry, message: "the node is stopping: resume the session"}
	case errors.Is(err, delivery.ErrListenSilent):
		return refuse(kapselv1.ErrorReason_ERROR_REASON_LISTENER_SILENT, "no result was reported within %v: resume the session", delivery.ReportTime)
	case errors.Is(err, delivery.ErrListenEnded):
		return noSuchSession()
	case errors.Is(err, delivery.ErrListenReplaced):
		return refuse(kapselv1.ErrorReason_ERROR_REASON_LISTEN_SESSION_NOT_FOUND, "the session was resumed by another stream")
	}
	return err
}

// describeOffer is an offer as clients see it. Its event is pending, whatever became of its other deliveries: this one is.
func describeOffer(offer *delivery.Offer) *kapselv1.ListenDelivery {
	event := offer.Duty.Event
	row := store.ListEventsRow{
		EventID: event.ID, EndpointID: event.EndpointID, ReceivedAt: event.ReceivedAt, ContentType: event.ContentType, EventType: event.Type,
		DedupKey: offer.DedupKey, SourceAddress: offer.SourceAddress, Verification: event.Preset,
		BodyBytes: int32(len(event.Body)), BodySHA256: event.BodySHA256[:],
	}
	return &kapselv1.ListenDelivery{
		AttemptId: id.Attempt.Text(offer.AttemptID), DeliveryId: id.Delivery.Text(offer.Duty.DeliveryID),
		Event: describeEvent(row, map[uuid.UUID]*fate{event.ID: {live: true}}), Number: int32(offer.Duty.Attempts + 1),
		Headers: headersOf(offer), Payload: event.Body, ReportDeadline: timestamppb.New(offer.Deadline()),
	}
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
	return l.messages.Send(message)
}
