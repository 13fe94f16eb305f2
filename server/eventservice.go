package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

// eventService reads accepted webhooks.
type eventService struct {
	kapselv1connect.UnimplementedEventServiceHandler
	*api
}

func (s *eventService) GetEvent(ctx context.Context, request *kapselv1.GetEventRequest) (*kapselv1.GetEventResponse, error) {
	tenantID := caller(ctx).TenantID
	eventID, err := id.Event.Parse(request.EventId)
	if err != nil {
		return nil, noSuchEvent()
	}
	response := new(kapselv1.GetEventResponse)
	err = s.DB.ReadAsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		row, err := s.DB.GetEvent(ctx, tx, tenantID, eventID)
		if errors.Is(err, pgx.ErrNoRows) {
			return noSuchEvent()
		}
		if err != nil {
			return err
		}
		fates, err := s.fates(ctx, tx, tenantID, []uuid.UUID{eventID})
		if err != nil {
			return err
		}
		response.Event = describeEvent(store.ListEventsRow{
			EventID: row.EventID, TenantID: row.TenantID, EndpointID: row.EndpointID, ReceivedAt: row.ReceivedAt,
			ContentType: row.ContentType, EventType: row.EventType, DedupKey: row.DedupKey, SourceAddress: row.SourceAddress,
			Verification: row.Verification, Defect: row.Defect, Erased: row.Erased, BodyBytes: row.BodyBytes, BodySHA256: row.BodySHA256,
		}, fates)
		response.Event.Headers = describeHeaders(row.Headers)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// ListEvents filters by state after a page was read, since an event's state stands in no column: such a page is shorter.
func (s *eventService) ListEvents(ctx context.Context, request *kapselv1.ListEventsRequest) (*kapselv1.ListEventsResponse, error) {
	tenantID := caller(ctx).TenantID
	page, err := readPage(request)
	if err != nil {
		return nil, err
	}
	params := listEventsParams(request.Filter)
	params.TenantID, params.MaxRows = tenantID, page.size+1
	if before := page.before.String(); before < params.BeforeID.String() {
		params.BeforeID = page.before
	}
	response := new(kapselv1.ListEventsResponse)
	err = s.DB.ReadAsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		rows, err := s.DB.ListEvents(ctx, tx, params)
		if err != nil {
			return err
		}
		if len(rows) > int(page.size) {
			rows = rows[:page.size]
			response.NextPageToken = page.token(rows[len(rows)-1].EventID)
		}
		ids := make([]uuid.UUID, len(rows))
		for i, row := range rows {
			ids[i] = row.EventID
		}
		fates, err := s.fates(ctx, tx, tenantID, ids)
		if err != nil {
			return err
		}
		wanted := request.GetFilter().GetStates()
		for _, row := range rows {
			event := describeEvent(row, fates)
			if len(wanted) == 0 || slices.Contains(wanted, event.State) {
				response.Events = append(response.Events, event)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func (s *eventService) GetPayload(ctx context.Context, request *kapselv1.GetPayloadRequest) (*kapselv1.GetPayloadResponse, error) {
	tenantID := caller(ctx).TenantID
	eventID, err := id.Event.Parse(request.EventId)
	if err != nil {
		return nil, noSuchEvent()
	}
	var row store.GetEventPayloadRow
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) (err error) {
		row, err = s.DB.GetEventPayload(ctx, tx, tenantID, eventID)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, noSuchEvent()
	}
	if err != nil {
		return nil, err
	}
	if row.Erased {
		return nil, payloadGone()
	}
	return &kapselv1.GetPayloadResponse{Payload: row.Body, ContentType: row.ContentType}, nil
}

// idSlack is how far the time in an event's id may be from its time of receipt: it was made right after it.
const idSlack = time.Hour

// The times that PostgreSQL and a UUIDv7 can both hold; a filter without bounds has these.
var (
	firstTime = time.Unix(0, 0)
	lastTime  = time.UnixMilli(1<<47 - 1)
)

func listEventsParams(filter *kapselv1.EventFilter) store.ListEventsParams {
	params := store.ListEventsParams{
		ReceivedFrom: firstTime, ReceivedBefore: lastTime, BeforeID: lastID,
		EndpointIds: []uuid.UUID{}, EventTypes: []string{}, EventTypePrefixes: []string{},
		KeyText: filter.GetIdText(), IDFrom: lastID,
	}
	if t := filter.GetReceived().GetStartTime(); t != nil {
		params.ReceivedFrom = clampTime(t)
		params.FromID = id.Floor(params.ReceivedFrom.Add(-idSlack))
	}
	if t := filter.GetReceived().GetEndTime(); t != nil {
		params.ReceivedBefore = clampTime(t)
		params.BeforeID = id.Floor(params.ReceivedBefore.Add(idSlack))
	}
	for _, text := range filter.GetEndpointIds() {
		if endpointID, err := id.Endpoint.Parse(text); err == nil {
			params.EndpointIds = append(params.EndpointIds, endpointID)
		}
	}
	for _, eventType := range filter.GetEventTypes() {
		if prefix, found := strings.CutSuffix(eventType, "*"); found {
			params.EventTypePrefixes = append(params.EventTypePrefixes, prefix)
		} else {
			params.EventTypes = append(params.EventTypes, eventType)
		}
	}
	if from, to, found := idRange(id.Event, params.KeyText); found {
		params.IDFrom, params.IDTo = from, to
	}
	return params
}

func clampTime(t *timestamppb.Timestamp) time.Time {
	at := t.AsTime()
	switch {
	case at.Before(firstTime):
		return firstTime
	case at.After(lastTime):
		return lastTime
	}
	return at
}

// idRange is the range of ids whose text begins with prefix.
func idRange(kind id.Kind, prefix string) (from, to uuid.UUID, found bool) {
	digits, found := strings.CutPrefix(prefix, string(kind)+"_")
	if !found || len(digits) > idDigits {
		return from, to, false
	}
	from, err1 := kind.Parse(prefix + strings.Repeat("0", idDigits-len(digits)))
	last := strings.Repeat("z", idDigits-len(digits))
	if digits == "" {
		last = "7" + last[1:] // 26 digits of 5 bits hold 2 bits more than an id has
	}
	to, err2 := kind.Parse(prefix + last)
	return from, to, err1 == nil && err2 == nil
}

// idDigits of an id's text after its kind.
const idDigits = 26

func payloadGone() *refusal {
	return refuse(kapselv1.ErrorReason_ERROR_REASON_PAYLOAD_GONE, "the payload of the event is gone")
}

func noSuchEvent() *refusal {
	return refuse(kapselv1.ErrorReason_ERROR_REASON_EVENT_NOT_FOUND, "there is no such event")
}
