package server

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/filter"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

// Defaults of a destination, as the contract documents them; written into the row like an endpoint's.
const (
	defaultConnectTimeout = 5 * time.Second
	defaultTimeout        = 15 * time.Second
	defaultMaxInFlight    = 64
)

// destinationSettings is a destination that can be stored: every default filled in, and each setting honoured.
type destinationSettings struct {
	*kapselv1.Destination
	credentials []credentialChange // which the destination itself is without
}

// readDestination checks a destination that is to be made, or changed from what it was before (nil: it is to be made). What
// a change leaves as it was is not held against it, even if it would be refused now.
func (s *destinationService) readDestination(given, before *kapselv1.Destination) (destinationSettings, error) {
	d := proto.CloneOf(given)
	if before == nil || d.Url != before.Url {
		if err := checkURL(s.guard, "destination.url", d.Url); err != nil {
			return destinationSettings{}, err
		}
	}
	if before == nil || d.GetFilter().GetExpression() != before.Filter.Expression {
		if _, err := filter.New(nil, d.GetFilter().GetExpression()); err != nil {
			return destinationSettings{}, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_EXPRESSION, "destination.filter.expression", "%v", err)
		}
	}
	if err := checkSignatureHeaders(d.GetSigning(), d.Headers); err != nil {
		return destinationSettings{}, err
	}
	for _, h := range d.Headers {
		if reservedHeader(h.Name) {
			return destinationSettings{}, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "destination.headers",
				"the header %s is set by Kapsel or HTTP itself: leave it out", h.Name)
		}
	}
	credentials, err := s.takeCredentials(d, before)
	if err != nil {
		return destinationSettings{}, err
	}
	if d.State == kapselv1.DestinationState_DESTINATION_STATE_UNSPECIFIED {
		d.State = kapselv1.DestinationState_DESTINATION_STATE_ENABLED
	}
	if d.Filter == nil {
		d.Filter = new(kapselv1.Filter)
	}
	if d.Signing == nil {
		d.Signing = new(kapselv1.Signing)
	}
	if d.Signing.Scheme == kapselv1.SigningScheme_SIGNING_SCHEME_UNSPECIFIED {
		d.Signing.Scheme = kapselv1.SigningScheme_SIGNING_SCHEME_V1
	}
	if d.RetryPolicy == nil {
		d.RetryPolicy = new(kapselv1.RetryPolicy)
	}
	if d.ConnectTimeout == nil {
		d.ConnectTimeout = durationpb.New(defaultConnectTimeout)
	}
	if d.Timeout == nil {
		d.Timeout = durationpb.New(defaultTimeout)
	}
	if d.MaxInFlight == 0 {
		d.MaxInFlight = defaultMaxInFlight
	}
	return destinationSettings{d, credentials}, nil
}

// reservedHeader reports whether a request's header is not for a destination's settings to set.
func reservedHeader(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "host", "content-length", "content-type", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade",
		"proxy-connection", "expect", "webhook-id", "webhook-timestamp", "webhook-signature", "traceparent", "tracestate":
		return true
	}
	return strings.HasPrefix(name, "kapsel-")
}

// row is what is stored, without its ids.
func (d destinationSettings) row() (store.CreateDestinationParams, error) {
	row := store.CreateDestinationParams{
		DisplayName: d.DisplayName, URL: d.Url, State: stateEnabled, ForwardedHeaders: d.ForwardedHeaders,
		ConnectTimeoutMs: milliseconds(d.ConnectTimeout), TimeoutMs: milliseconds(d.Timeout), MaxInFlight: d.MaxInFlight,
	}
	if d.State == kapselv1.DestinationState_DESTINATION_STATE_PAUSED {
		row.State = statePaused
	}
	if row.ForwardedHeaders == nil {
		row.ForwardedHeaders = []string{}
	}
	headers := make([]route.StaticHeader, len(d.Headers))
	for i, h := range d.Headers {
		headers[i] = route.StaticHeader{Name: h.Name, Sealed: true} // see storeHeaders
	}
	var err error
	if row.Headers, err = json.Marshal(headers); err != nil {
		return row, err
	}
	if d.RatePerSecond > 0 {
		row.RatePerSecond = &d.RatePerSecond
	}
	columns := map[*[]byte]proto.Message{&row.Filter: d.Filter, &row.Signing: d.Signing, &row.RetryPolicy: d.RetryPolicy}
	if d.Ordering != nil {
		columns[&row.Ordering] = d.Ordering
	}
	maps.Copy(columns, outboundColumns(d.Destination, &row))
	for column, message := range columns {
		if *column, err = protojson.Marshal(message); err != nil {
			return row, err
		}
	}
	return row, nil
}

// milliseconds rounds up, so that a bound above zero never becomes none.
func milliseconds(d *durationpb.Duration) int32 {
	return int32((d.AsDuration() + time.Millisecond - 1) / time.Millisecond)
}

// describeDestination makes the resource of a row, without its secrets.
func describeDestination(row store.Destination) (*kapselv1.Destination, error) {
	d := &kapselv1.Destination{
		Id: id.Destination.Text(row.DestinationID), EndpointId: id.Endpoint.Text(row.EndpointID),
		DisplayName: row.DisplayName, Url: row.URL,
		State:         kapselv1.DestinationState_DESTINATION_STATE_ENABLED,
		DisableReason: kapselv1.DisableReason(row.DisableReason), StateDetail: row.StateDetail,
		Filter: new(kapselv1.Filter), Signing: new(kapselv1.Signing), RetryPolicy: new(kapselv1.RetryPolicy),
		ConnectTimeout:   durationpb.New(time.Duration(row.ConnectTimeoutMs) * time.Millisecond),
		Timeout:          durationpb.New(time.Duration(row.TimeoutMs) * time.Millisecond),
		MaxInFlight:      row.MaxInFlight,
		ForwardedHeaders: row.ForwardedHeaders,
		CreateTime:       timestamppb.New(row.CreatedAt), UpdateTime: timestamppb.New(row.UpdatedAt), Etag: etag(row.UpdatedAt),
	}
	switch row.State {
	case statePaused:
		d.State = kapselv1.DestinationState_DESTINATION_STATE_PAUSED
	case stateDisabled:
		d.State = kapselv1.DestinationState_DESTINATION_STATE_DISABLED
	}
	if row.RatePerSecond != nil {
		d.RatePerSecond = *row.RatePerSecond
	}
	headers, err := route.ReadHeaders(row.Headers)
	if err != nil {
		return nil, err
	}
	for _, h := range headers { // whatever stands there: values are never shown
		d.Headers = append(d.Headers, &kapselv1.Header{Name: h.Name})
	}
	columns := []column{{row.Filter, d.Filter}, {row.Signing, d.Signing}, {row.RetryPolicy, d.RetryPolicy}}
	if row.Ordering != nil {
		d.Ordering = new(kapselv1.Ordering)
		columns = append(columns, column{row.Ordering, d.Ordering})
	}
	return d, errors.Join(decodeColumns(columns...), describeOutbound(row, d))
}
