package server

import (
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/signature"
)

func TestEndpointHasItsDocumentedDefaults(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, secret := r.endpoint(a, &kapselv1.Endpoint{DisplayName: "plain"})
	want := &kapselv1.Endpoint{
		Id: e.Id, DisplayName: "plain", Verification: &kapselv1.Verification{Preset: "none"},
		PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_ANY, MaxBodyBytes: 1 << 20,
		Deduplication: &kapselv1.Deduplication{
			Source: kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_AUTO, Window: durationpb.New(24 * time.Hour),
		},
		EventTypeSource: &kapselv1.EventTypeSource{Kind: kapselv1.EventTypeSourceKind_EVENT_TYPE_SOURCE_KIND_AUTO},
		State:           kapselv1.EndpointState_ENDPOINT_STATE_ENABLED,
		IngestUrl:       "https://kapsel.example.com/ingest/" + e.Id,
		CreateTime:      e.CreateTime, UpdateTime: e.UpdateTime, Etag: e.Etag,
	}
	if diff := cmp.Diff(want, e, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if secret != "" || e.Etag == "" || time.Since(e.CreateTime.AsTime()) > time.Minute {
		t.Errorf("secret %q, etag %q, created %v", secret, e.Etag, e.CreateTime.AsTime())
	}
	got := must(a.endpoints.GetEndpoint(t.Context(), &kapselv1.GetEndpointRequest{EndpointId: e.Id}))(t)
	if diff := cmp.Diff(e, got.Endpoint, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestEndpointKeepsItsSettingsAndSecrets(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	given := &kapselv1.Endpoint{
		Verification: &kapselv1.Verification{Preset: "generic", Tolerance: durationpb.New(time.Minute), Generic: &kapselv1.GenericSignature{
			Header: "X-Sig", Prefix: "v1=", TimestampHeader: "X-Time", Encoding: kapselv1.SignatureEncoding_SIGNATURE_ENCODING_BASE64,
		}},
		PayloadFormat:   kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON,
		MaxBodyBytes:    10 << 20,
		Deduplication:   &kapselv1.Deduplication{Source: kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_JSON_PATH, JsonPath: "data.id", Window: durationpb.New(time.Hour)},
		EventTypeSource: &kapselv1.EventTypeSource{Kind: kapselv1.EventTypeSourceKind_EVENT_TYPE_SOURCE_KIND_HEADER, Header: "X-Type"},
	}
	response := must(a.endpoints.CreateEndpoint(t.Context(), &kapselv1.CreateEndpointRequest{Endpoint: given, Secrets: []string{"first secret", "second secret"}}))(t)
	e := response.Endpoint
	if response.Secret != "" || len(e.Secrets) != 2 || !strings.HasPrefix(e.Secrets[0].Id, "sec_") {
		t.Errorf("secret %q, secrets %v", response.Secret, e.Secrets)
	}
	for name, got := range map[string]any{
		"verification": cmp.Diff(given.Verification, e.Verification, protocmp.Transform()),
		"dedup":        cmp.Diff(given.Deduplication, e.Deduplication, protocmp.Transform()),
		"event type":   cmp.Diff(given.EventTypeSource, e.EventTypeSource, protocmp.Transform()),
	} {
		if got != "" {
			t.Errorf("%s: %s", name, got)
		}
	}
	endpointID := must(id.Endpoint.Parse(e.Id))(t)
	compiled := r.deps.Routes.Snapshot().Endpoint(endpointID)
	if compiled == nil || !compiled.RequireJSON || compiled.MaxBodyBytes != 10<<20 || compiled.Dedup.Path.String() != "data.id" || compiled.EventType.Name != "X-Type" {
		t.Fatalf("the route is %+v", compiled)
	}
	body := []byte(`{}`)
	config := signature.Config{Preset: "generic", Header: "X-Sig", Prefix: "v1=", TimestampHeader: "X-Time", Encoding: signature.Base64}
	for _, secret := range []string{"first secret", "second secret"} {
		header := must(signature.Sign(config, []byte(secret), body, time.Now(), ""))(t)
		if err := compiled.Verifier.Verify(signature.Request{Header: header, Body: body}, time.Now()); err != nil {
			t.Errorf("%s: %v", secret, err)
		}
	}
}

func TestEndpointsThatAreRefused(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	generic := func(g *kapselv1.GenericSignature) *kapselv1.Endpoint {
		return &kapselv1.Endpoint{Verification: &kapselv1.Verification{Preset: "generic", Generic: g}}
	}
	preset := func(name string) *kapselv1.Endpoint {
		return &kapselv1.Endpoint{Verification: &kapselv1.Verification{Preset: name}}
	}
	for name, test := range map[string]struct {
		endpoint *kapselv1.Endpoint
		secrets  []string
		code     connect.Code
		reason   string
		message  string
	}{
		"no endpoint":       {nil, nil, connect.CodeInvalidArgument, "INVALID_REQUEST", "endpoint"},
		"size":              {&kapselv1.Endpoint{MaxBodyBytes: 11 << 20}, nil, connect.CodeInvalidArgument, "INVALID_REQUEST", "endpoint.max_body_bytes"},
		"NUL":               {&kapselv1.Endpoint{DisplayName: "a\x00b"}, nil, connect.CodeInvalidArgument, "INVALID_REQUEST", "U+0000"},
		"preset":            {preset("acme"), nil, connect.CodeInvalidArgument, "UNKNOWN_PRESET", "github"},
		"no secret":         {preset("stripe"), nil, connect.CodeInvalidArgument, "INVALID_SECRET", "stripe"},
		"secret's form":     {preset("standard-webhooks"), []string{"whsec_!"}, connect.CodeInvalidArgument, "INVALID_SECRET", "base64"},
		"needless secret":   {preset("none"), []string{"x"}, connect.CodeInvalidArgument, "INVALID_SECRET", "none"},
		"same header twice": {generic(&kapselv1.GenericSignature{Header: "X-A", TimestampHeader: "x-a"}), nil, connect.CodeInvalidArgument, "INVALID_REQUEST", "X-A"},
		"schema of any":     {&kapselv1.Endpoint{JsonSchema: "{}"}, nil, connect.CodeInvalidArgument, "INVALID_REQUEST", "payload_format JSON"},
		"remote schema": {&kapselv1.Endpoint{PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON, JsonSchema: `{"$ref":"https://example.com/s"}`}, nil,
			connect.CodeInvalidArgument, "INVALID_REQUEST", "not fetched"},
		"signed URL": {&kapselv1.Endpoint{Verification: &kapselv1.Verification{Preset: "github", SignedUrl: "https://example.com/"}}, nil,
			connect.CodeInvalidArgument, "INVALID_REQUEST", "signs no URL"},
		"public key": {preset("discord"), []string{"not a key"}, connect.CodeInvalidArgument, "INVALID_SECRET", "hex"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.endpoints.CreateEndpoint(t.Context(), &kapselv1.CreateEndpointRequest{Endpoint: test.endpoint, Secrets: test.secrets})
			got := wantReason(t, err, test.code, test.reason)
			if !strings.Contains(got.Message(), test.message) {
				t.Errorf("message %q does not name %q", got.Message(), test.message)
			}
			fields := detailOf[*errdetails.BadRequest](t, got).GetFieldViolations()
			if test.code == connect.CodeInvalidArgument && name != "NUL" && len(fields) == 0 {
				t.Error("no field is named")
			}
		})
	}
	if list := must(a.endpoints.ListEndpoints(t.Context(), &kapselv1.ListEndpointsRequest{}))(t); len(list.Endpoints) != 0 {
		t.Errorf("%d endpoints were made", len(list.Endpoints))
	}
}

func TestToleranceIsIgnoredWhereNoTimestampIsSigned(t *testing.T) {
	r := newRig(t)
	e, secret := r.endpoint(r.tenant(), &kapselv1.Endpoint{Verification: &kapselv1.Verification{Preset: "github", Tolerance: durationpb.New(time.Minute)}})
	if e.Verification.Tolerance != nil || !strings.HasPrefix(secret, "whsec_") {
		t.Errorf("verification %v, secret %q", e.Verification, secret)
	}
}

func TestEndpointsAreListedNewestFirstInPages(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	var want []string
	for range 5 {
		e, _ := r.endpoint(a, &kapselv1.Endpoint{})
		want = append([]string{e.Id}, want...)
	}
	var got, sizes []string
	request := &kapselv1.ListEndpointsRequest{PageSize: 2}
	for {
		response := must(a.endpoints.ListEndpoints(t.Context(), request))(t)
		sizes = append(sizes, strings.Repeat("x", len(response.Endpoints)))
		for _, e := range response.Endpoints {
			got = append(got, e.Id)
		}
		if request.PageToken = response.NextPageToken; request.PageToken == "" {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"xx", "xx", "x"}, sizes); diff != "" {
		t.Error(diff)
	}
}

func TestTenantsDoNotSeeEachOther(t *testing.T) {
	r := newRig(t)
	mine, other := r.tenant(), r.tenant()
	e, _ := r.endpoint(mine, &kapselv1.Endpoint{})
	d := r.destination(mine, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	receipt := must(mine.ingest.Ingest(t.Context(), &kapselv1.IngestRequest{EndpointId: e.Id, Payload: []byte("x")}))(t).Receipt
	r.event(mine, receipt.EventId, kapselv1.EventState_EVENT_STATE_DELIVERED)
	attempts := must(mine.deliveries.ListAttempts(t.Context(), &kapselv1.ListAttemptsRequest{
		Parent: &kapselv1.ListAttemptsRequest_EventId{EventId: receipt.EventId},
	}))(t).Attempts
	attemptID, deliveryID := attempts[0].Id, attempts[0].DeliveryId
	ctx := t.Context()

	for reason, call := range map[string]func(a account) error{
		"ENDPOINT_NOT_FOUND": func(a account) error {
			_, err := a.endpoints.GetEndpoint(ctx, &kapselv1.GetEndpointRequest{EndpointId: e.Id})
			return err
		},
		"DESTINATION_NOT_FOUND": func(a account) error {
			_, err := a.destinations.GetDestination(ctx, &kapselv1.GetDestinationRequest{DestinationId: d.Id})
			return err
		},
		"EVENT_NOT_FOUND": func(a account) error {
			_, err := a.events.GetEvent(ctx, &kapselv1.GetEventRequest{EventId: receipt.EventId})
			return err
		},
		"EVENT_NOT_FOUND of payload": func(a account) error {
			_, err := a.events.GetPayload(ctx, &kapselv1.GetPayloadRequest{EventId: receipt.EventId})
			return err
		},
		"DELIVERY_NOT_FOUND": func(a account) error {
			_, err := a.deliveries.GetDelivery(ctx, &kapselv1.GetDeliveryRequest{DeliveryId: deliveryID})
			return err
		},
		"ATTEMPT_NOT_FOUND": func(a account) error {
			_, err := a.deliveries.GetAttempt(ctx, &kapselv1.GetAttemptRequest{AttemptId: attemptID})
			return err
		},
		"EVENT_NOT_FOUND of attempts": func(a account) error {
			_, err := a.deliveries.ListAttempts(ctx, &kapselv1.ListAttemptsRequest{Parent: &kapselv1.ListAttemptsRequest_EventId{EventId: receipt.EventId}})
			return err
		},
		"DELIVERY_NOT_FOUND of attempts": func(a account) error {
			_, err := a.deliveries.ListAttempts(ctx, &kapselv1.ListAttemptsRequest{Parent: &kapselv1.ListAttemptsRequest_DeliveryId{DeliveryId: deliveryID}})
			return err
		},
		"ATTEMPT_NOT_FOUND of proof": func(a account) error {
			_, err := a.attestation.GetInclusionProof(ctx, &kapselv1.GetInclusionProofRequest{Leaf: &kapselv1.GetInclusionProofRequest_AttemptId{AttemptId: attemptID}})
			return err
		},
		"EVENT_NOT_FOUND of packages": func(a account) error {
			_, err := a.attestation.GetProofPackage(ctx, &kapselv1.GetProofPackageRequest{Subject: &kapselv1.GetProofPackageRequest_EventId{EventId: receipt.EventId}})
			return err
		},
		"DELIVERY_NOT_FOUND of packages": func(a account) error {
			_, err := a.attestation.GetProofPackage(ctx, &kapselv1.GetProofPackageRequest{Subject: &kapselv1.GetProofPackageRequest_DeliveryId{DeliveryId: deliveryID}})
			return err
		},
		"ENDPOINT_NOT_FOUND of ingest": func(a account) error {
			_, err := a.ingest.Ingest(ctx, &kapselv1.IngestRequest{EndpointId: e.Id})
			return err
		},
		"ENDPOINT_NOT_FOUND of destination": func(a account) error {
			_, err := a.destinations.CreateDestination(ctx, &kapselv1.CreateDestinationRequest{Destination: &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/"}})
			return err
		},
	} {
		t.Run(reason, func(t *testing.T) {
			want, _, _ := strings.Cut(reason, " ")
			wantReason(t, call(other), connect.CodeNotFound, want)
			if strings.Contains(reason, "of proof") || strings.Contains(reason, "of packages") {
				return // for the owner they wait for the seal
			}
			if err := call(mine); err != nil {
				t.Errorf("its owner gets %v", err)
			}
		})
	}
	for what, n := range map[string]int{
		"endpoints":    len(must(other.endpoints.ListEndpoints(ctx, &kapselv1.ListEndpointsRequest{}))(t).Endpoints),
		"destinations": len(must(other.destinations.ListDestinations(ctx, &kapselv1.ListDestinationsRequest{EndpointId: e.Id}))(t).Destinations),
		"events":       len(must(other.events.ListEvents(ctx, &kapselv1.ListEventsRequest{}))(t).Events),
		"deliveries":   len(must(other.deliveries.ListDeliveries(ctx, &kapselv1.ListDeliveriesRequest{EventId: receipt.EventId}))(t).Deliveries),
	} {
		if n != 0 {
			t.Errorf("another tenant lists %d %s", n, what)
		}
	}
}

func TestQuotaOfEndpoints(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	if _, err := r.db.Engine().Exec(t.Context(), "update tenants set max_endpoints = 1, max_destinations = 1 where tenant_id = $1", a.id); err != nil {
		t.Fatal(err)
	}
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	_, err := a.endpoints.CreateEndpoint(t.Context(), &kapselv1.CreateEndpointRequest{Endpoint: &kapselv1.Endpoint{}})
	wantReason(t, err, connect.CodeResourceExhausted, "QUOTA_EXCEEDED")
	r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/"})
	_, err = a.destinations.CreateDestination(t.Context(), &kapselv1.CreateDestinationRequest{Destination: &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/"}})
	wantReason(t, err, connect.CodeResourceExhausted, "QUOTA_EXCEEDED")
}
