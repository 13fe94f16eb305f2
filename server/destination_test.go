package server

import (
	"encoding/base64"
	"net/netip"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/signature"
)

func TestDestinationHasItsDocumentedDefaults(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	response := must(a.destinations.CreateDestination(t.Context(), &kapselv1.CreateDestinationRequest{
		Destination: &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/in?a=b"},
	}))(t)
	d := response.Destination
	want := &kapselv1.Destination{
		Id: d.Id, EndpointId: e.Id, Url: "https://example.com/in?a=b", State: kapselv1.DestinationState_DESTINATION_STATE_ENABLED,
		Filter: &kapselv1.Filter{}, Signing: &kapselv1.Signing{Scheme: kapselv1.SigningScheme_SIGNING_SCHEME_V1}, RetryPolicy: &kapselv1.RetryPolicy{},
		ConnectTimeout: durationpb.New(5 * time.Second), Timeout: durationpb.New(15 * time.Second), MaxInFlight: 64,
		Secrets: d.Secrets, CreateTime: d.CreateTime, UpdateTime: d.UpdateTime, Etag: d.Etag,
	}
	if diff := cmp.Diff(want, d, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if len(d.Secrets) != 1 || !strings.HasPrefix(response.Secret, "whsec_") {
		t.Errorf("secret %q, secrets %v", response.Secret, d.Secrets)
	}
	got := must(a.destinations.GetDestination(t.Context(), &kapselv1.GetDestinationRequest{DestinationId: d.Id}))(t)
	if diff := cmp.Diff(d, got.Destination, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	// The secret that was shown is the one that signs.
	destinationID := must(id.Destination.Parse(d.Id))(t)
	body, at := []byte("{}"), time.Now()
	signed := r.deps.Routes.Snapshot().Destination(destinationID).Signer.Sign("evt_1", at, body)
	header := must(signature.Sign(signature.Config{Preset: "standard-webhooks"}, []byte(response.Secret), body, at, "evt_1"))(t)
	if want := header.Get("Webhook-Signature"); signed != want {
		t.Errorf("signs %q, want %q", signed, want)
	}
}

func TestDestinationKeepsItsSettings(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	given := &kapselv1.Destination{
		EndpointId: e.Id, Url: "http://[2606:4700::1111]:8080/", DisplayName: "all set", State: kapselv1.DestinationState_DESTINATION_STATE_PAUSED,
		Filter:         &kapselv1.Filter{EventTypes: []string{"push"}},
		Signing:        &kapselv1.Signing{Scheme: kapselv1.SigningScheme_SIGNING_SCHEME_V1A},
		RetryPolicy:    &kapselv1.RetryPolicy{Base: durationpb.New(time.Second), Factor: 3, Jitter: proto.Float64(0), MaxAttempts: 4, FatalStatuses: []int32{404}},
		ConnectTimeout: durationpb.New(time.Second), Timeout: durationpb.New(2 * time.Second), MaxInFlight: 3,
		RatePerSecond: 5, Ordering: &kapselv1.Ordering{Key: &kapselv1.Ordering_Header{Header: "x-key"}},
		Headers:          []*kapselv1.Header{{Name: "X-Team", Value: "a"}, {Name: "X-Team", Value: "b \"c\""}},
		ForwardedHeaders: []string{"X-Request-Id"},
	}
	d := r.destination(a, given)
	for _, h := range given.Headers {
		h.Value = "" // never shown
	}
	ignore := protocmp.IgnoreFields(&kapselv1.Destination{}, "id", "secrets", "public_keys", "create_time", "update_time", "etag")
	if diff := cmp.Diff(given, d, protocmp.Transform(), ignore); diff != "" {
		t.Error(diff)
	}
	if len(d.PublicKeys) != 1 || !strings.HasPrefix(d.PublicKeys[0], "whpk_") {
		t.Errorf("public keys %v", d.PublicKeys)
	}
	destinationID := must(id.Destination.Parse(d.Id))(t)
	compiled := r.deps.Routes.Snapshot().Destination(destinationID)
	if compiled.Active || compiled.Timeout != 2*time.Second || compiled.Retry.MaxAttempts != 4 || compiled.Filter.MatchesType("pull") ||
		compiled.RatePerSecond != 5 || compiled.Ordering.Header != "X-Key" ||
		!cmp.Equal(compiled.Headers["X-Team"], []string{"a", "b \"c\""}) {
		t.Errorf("the route is %+v", compiled)
	}
}

func TestDestinationsThatAreRefused(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	public := "https://example.com/"
	privateKey, publicKey := signature.NewKeyPair()
	for name, test := range map[string]struct {
		destination *kapselv1.Destination
		secret      string
		code        connect.Code
		reason      string
	}{
		"no URL":             {&kapselv1.Destination{}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"scheme":             {&kapselv1.Destination{Url: "ftp://example.com/"}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"user":               {&kapselv1.Destination{Url: "https://me:secret@example.com/"}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"fragment":           {&kapselv1.Destination{Url: "https://example.com/#a"}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"metadata":           {&kapselv1.Destination{Url: "http://169.254.169.254/latest"}, "", connect.CodeInvalidArgument, "ADDRESS_BLOCKED"},
		"private":            {&kapselv1.Destination{Url: "http://10.0.0.1/"}, "", connect.CodeInvalidArgument, "ADDRESS_BLOCKED"},
		"private and mapped": {&kapselv1.Destination{Url: "http://[::ffff:a00:1]/"}, "", connect.CodeInvalidArgument, "ADDRESS_BLOCKED"},
		"IPv6 loopback":      {&kapselv1.Destination{Url: "http://[::1]/"}, "", connect.CodeInvalidArgument, "ADDRESS_BLOCKED"},
		"link-local":         {&kapselv1.Destination{Url: "http://[fe80::1%25eth0]/"}, "", connect.CodeInvalidArgument, "ADDRESS_BLOCKED"},
		"header":             {&kapselv1.Destination{Url: public, Headers: []*kapselv1.Header{{Name: "webhook-ID", Value: "x"}}}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"own header":         {&kapselv1.Destination{Url: public, Headers: []*kapselv1.Header{{Name: "Kapsel-Attempt", Value: "x"}}}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"header injection":   {&kapselv1.Destination{Url: public, Headers: []*kapselv1.Header{{Name: "X", Value: "a\r\nB: c"}}}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"disabled":           {&kapselv1.Destination{Url: public, State: kapselv1.DestinationState_DESTINATION_STATE_DISABLED}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"short secret":       {&kapselv1.Destination{Url: public}, "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 8)), connect.CodeInvalidArgument, "INVALID_SECRET"},
		"private for V1":     {&kapselv1.Destination{Url: public}, privateKey, connect.CodeInvalidArgument, "INVALID_SECRET"},
		"public key": {&kapselv1.Destination{Url: public, Signing: &kapselv1.Signing{Scheme: kapselv1.SigningScheme_SIGNING_SCHEME_V1A}}, publicKey,
			connect.CodeInvalidArgument, "INVALID_SECRET"},
		"expression":         {&kapselv1.Destination{Url: public, Filter: &kapselv1.Filter{Expression: "payload.a =="}}, "", connect.CodeInvalidArgument, "INVALID_EXPRESSION"},
		"costly expression":  {&kapselv1.Destination{Url: public, Filter: &kapselv1.Filter{Expression: "payload.all(a, payload.all(b, payload.all(c, a == b && b == c)))"}}, "", connect.CodeInvalidArgument, "INVALID_EXPRESSION"},
		"expression of text": {&kapselv1.Destination{Url: public, Filter: &kapselv1.Filter{Expression: "event_type"}}, "", connect.CodeInvalidArgument, "INVALID_EXPRESSION"},
		"signature's header twice": {&kapselv1.Destination{Url: public, Signing: &kapselv1.Signing{SignatureHeader: "X-Sig"}, Headers: []*kapselv1.Header{{Name: "x-sig", Value: "a"}}}, "",
			connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"one name for two":      {&kapselv1.Destination{Url: public, Signing: &kapselv1.Signing{IdHeader: "X-A", TimestampHeader: "x-a"}}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"signature as the host": {&kapselv1.Destination{Url: public, Signing: &kapselv1.Signing{SignatureHeader: "host"}}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
	} {
		t.Run(name, func(t *testing.T) {
			test.destination.EndpointId = e.Id
			_, err := a.destinations.CreateDestination(t.Context(), &kapselv1.CreateDestinationRequest{Destination: test.destination, Secret: test.secret})
			got := wantReason(t, err, test.code, test.reason)
			if test.secret != "" && strings.Contains(got.Message(), test.secret) {
				t.Errorf("message %q quotes the secret", got.Message())
			}
		})
	}
	if list := must(a.destinations.ListDestinations(t.Context(), &kapselv1.ListDestinationsRequest{}))(t); len(list.Destinations) != 0 {
		t.Errorf("%d destinations were made", len(list.Destinations))
	}
}

func TestLocalhostIsLoopback(t *testing.T) {
	for url, blocked := range map[string]bool{
		"http://localhost:3000/": true, "http://LOCALHOST./": true, "http://api.localhost/": true, "http://127.0.0.1/": true,
		"http://localhost.example.com/": false, "http://1.1.1.1/": false, "http://example.com/": false,
	} {
		if err := checkURL(delivery.NewGuard(nil), "destination.url", url); (err != nil) != blocked {
			t.Errorf("%s: %v, want blocked %v", url, err, blocked)
		}
		if err := checkURL(delivery.NewGuard([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}), "destination.url", url); err != nil {
			t.Errorf("%s with loopback allowed: %v", url, err)
		}
	}
}

func TestDestinationsAreListedByEndpoint(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e1, _ := r.endpoint(a, &kapselv1.Endpoint{})
	e2, _ := r.endpoint(a, &kapselv1.Endpoint{})
	var want []string
	for range 3 {
		want = append([]string{r.destination(a, &kapselv1.Destination{EndpointId: e1.Id, Url: "https://example.com/"}).Id}, want...)
		r.destination(a, &kapselv1.Destination{EndpointId: e2.Id, Url: "https://example.com/"})
	}
	request := &kapselv1.ListDestinationsRequest{EndpointId: e1.Id, PageSize: 2}
	first := must(a.destinations.ListDestinations(t.Context(), request))(t)
	request.PageToken = first.NextPageToken
	second := must(a.destinations.ListDestinations(t.Context(), request))(t)
	var got []string
	for _, d := range append(first.Destinations, second.Destinations...) {
		got = append(got, d.Id)
	}
	if diff := cmp.Diff(want, got); diff != "" || second.NextPageToken != "" {
		t.Errorf("%s, next %q", diff, second.NextPageToken)
	}
	for _, request := range []*kapselv1.ListDestinationsRequest{
		{EndpointId: e2.Id, PageToken: first.NextPageToken}, // of another filter
		{PageToken: "nonsense!"},
		{PageToken: "AAAA"},
	} {
		_, err := a.destinations.ListDestinations(t.Context(), request)
		wantReason(t, err, connect.CodeInvalidArgument, "INVALID_TOKEN")
	}
	all := must(a.destinations.ListDestinations(t.Context(), &kapselv1.ListDestinationsRequest{}))(t)
	if len(all.Destinations) != 6 {
		t.Errorf("%d of all endpoints, want 6", len(all.Destinations))
	}
}
