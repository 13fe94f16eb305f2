package server

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/internal/signature"
	"github.com/kapsel-dev/kapsel/store"
)

// Defaults of a destination, as the contract documents them; written into the row like an endpoint's.
const (
	defaultConnectTimeout = 5 * time.Second
	defaultTimeout        = 15 * time.Second
	defaultMaxInFlight    = 64
)

// Prefixes of Standard Webhooks secrets by scheme.
const (
	prefixHMACSecret = "whsec_"
	prefixPrivateKey = "whsk_"
	prefixPublicKey  = "whpk_"
)

// destinationSettings is a destination that can be stored: every default filled in, and each setting honoured.
type destinationSettings struct{ *kapselv1.Destination }

// readDestination checks a destination that is to be made.
func (s *destinationService) readDestination(given *kapselv1.Destination) (destinationSettings, error) {
	d := proto.CloneOf(given)
	if err := refuseUnsupported(d); err != nil {
		return destinationSettings{}, err
	}
	if err := checkURL(s.guard, d.Url); err != nil {
		return destinationSettings{}, err
	}
	for _, h := range d.Headers {
		if reservedHeader(h.Name) {
			return destinationSettings{}, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "destination.headers",
				"the header %s is set by Kapsel or HTTP itself: leave it out", h.Name)
		}
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
	return destinationSettings{d}, nil
}

func refuseUnsupported(d *kapselv1.Destination) error {
	signing := d.GetSigning()
	switch {
	case d.GetFilter().GetExpression() != "":
		return refuseSetting("destination.filter.expression")
	case d.Ordering != nil:
		return refuseSetting("destination.ordering")
	case d.RatePerSecond != 0:
		return refuseSetting("destination.rate_per_second")
	case signing.GetIdHeader() != "":
		return refuseSetting("destination.signing.id_header")
	case signing.GetTimestampHeader() != "":
		return refuseSetting("destination.signing.timestamp_header")
	case signing.GetSignatureHeader() != "":
		return refuseSetting("destination.signing.signature_header")
	}
	for _, eventType := range d.GetFilter().GetEventTypes() {
		if strings.HasSuffix(eventType, "*") {
			return refuseSetting("destination.filter.event_types with a \"*\" at the end")
		}
	}
	return nil
}

// reservedHeader reports whether a request's header is not for a destination's settings to set.
func reservedHeader(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "host", "content-length", "content-type", "transfer-encoding", "connection", "keep-alive", "te", "trailer", "upgrade",
		"proxy-connection", "expect", "webhook-id", "webhook-timestamp", "webhook-signature", "traceparent":
		return true
	}
	return strings.HasPrefix(name, "kapsel-")
}

// chooseSecret checks the given secret, or generates one. shown is what the caller is told: nothing of a private key,
// whose receivers take the public one.
func (d destinationSettings) chooseSecret(given string) (value, shown string, err error) {
	asymmetric := d.Signing.Scheme == kapselv1.SigningScheme_SIGNING_SCHEME_V1A
	want := prefixHMACSecret
	if asymmetric {
		want = prefixPrivateKey
	}
	if given == "" {
		if asymmetric {
			private, _ := signature.NewKeyPair()
			return private, "", nil
		}
		generated := signature.NewSecret()
		return generated, generated, nil
	}
	if !strings.HasPrefix(given, want) {
		return "", "", refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_SECRET, "secret", "a secret of this signing scheme begins with %s", want)
	}
	if _, err := signature.NewSigner([][]byte{[]byte(given)}); err != nil {
		return "", "", refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_SECRET, "secret", "%v", err)
	}
	if raw, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(given, want)); !asymmetric && (len(raw) < 24 || len(raw) > 64) {
		return "", "", refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_SECRET, "secret", "the secret has %d bytes: want 24 to 64", len(raw))
	}
	return given, "", nil
}

// publicKeyOf is the public half of a whsk_ secret: seed, then public key.
func publicKeyOf(value secret.Secret) (string, error) {
	text, found := strings.CutPrefix(string(value.Reveal()), prefixPrivateKey)
	raw, err := base64.StdEncoding.DecodeString(text)
	if !found || err != nil || len(raw) != ed25519.PrivateKeySize {
		return "", errors.New("the secret of a destination of scheme V1A is not an Ed25519 private key")
	}
	return prefixPublicKey + base64.StdEncoding.EncodeToString(raw[ed25519.SeedSize:]), nil
}

// storedHeader is an element of the column headers.
type storedHeader struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// row is what is stored, without its ids.
func (d destinationSettings) row() (store.CreateDestinationParams, error) {
	row := store.CreateDestinationParams{
		DisplayName: d.DisplayName, URL: d.Url, State: "enabled", ForwardedHeaders: d.ForwardedHeaders,
		ConnectTimeoutMs: milliseconds(d.ConnectTimeout), TimeoutMs: milliseconds(d.Timeout), MaxInFlight: d.MaxInFlight,
	}
	if d.State == kapselv1.DestinationState_DESTINATION_STATE_PAUSED {
		row.State = "paused"
	}
	if row.ForwardedHeaders == nil {
		row.ForwardedHeaders = []string{}
	}
	headers := make([]storedHeader, len(d.Headers))
	for i, h := range d.Headers {
		headers[i] = storedHeader{h.Name, h.Value}
	}
	var err error
	if row.Headers, err = json.Marshal(headers); err != nil {
		return row, err
	}
	for column, message := range map[*[]byte]proto.Message{
		&row.Filter: d.Filter, &row.Signing: d.Signing, &row.RetryPolicy: d.RetryPolicy,
	} {
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
	case "paused":
		d.State = kapselv1.DestinationState_DESTINATION_STATE_PAUSED
	case "disabled":
		d.State = kapselv1.DestinationState_DESTINATION_STATE_DISABLED
	}
	if row.RatePerSecond != nil {
		d.RatePerSecond = *row.RatePerSecond
	}
	var headers []storedHeader
	if err := json.Unmarshal(row.Headers, &headers); err != nil {
		return nil, err
	}
	for _, h := range headers {
		d.Headers = append(d.Headers, &kapselv1.Header{Name: h.Name, Value: h.Value})
	}
	columns := []column{{row.Filter, d.Filter}, {row.Signing, d.Signing}, {row.RetryPolicy, d.RetryPolicy}}
	if row.Ordering != nil {
		d.Ordering = new(kapselv1.Ordering)
		columns = append(columns, column{row.Ordering, d.Ordering})
	}
	return d, decodeColumns(columns...)
}
