package server

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/signature"
)

// routedEndpoint is what the snapshot has of an endpoint.
func (r *rig) routedEndpoint(e *kapselv1.Endpoint) *route.Endpoint {
	r.t.Helper()
	return r.deps.Routes.Snapshot().Endpoint(must(id.Endpoint.Parse(e.Id))(r.t))
}

// takes reports whether the endpoint takes a GitHub webhook that was signed with the secret.
func (r *rig) takes(e *kapselv1.Endpoint, secret string) bool {
	r.t.Helper()
	body, now := []byte(`{}`), time.Now()
	header := must(signature.Sign(signature.Config{Preset: "github"}, []byte(secret), body, now, "1"))(r.t)
	endpoint := r.routedEndpoint(e)
	return endpoint != nil && endpoint.Verifier.Verify(signature.Request{Header: header, Body: body}, now) == nil
}

func TestUpdateOfAnEndpointChangesWhatTheMaskNames(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	before, _ := r.endpoint(a, &kapselv1.Endpoint{
		DisplayName: "before", MaxBodyBytes: 1000, PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON,
		Deduplication: &kapselv1.Deduplication{Source: kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_HEADER, Header: "X-Id", Window: durationpb.New(time.Hour)},
	})
	for _, test := range []struct {
		name   string
		paths  []string
		given  *kapselv1.Endpoint
		change func(want *kapselv1.Endpoint)
	}{
		{"one field, whatever else is given", []string{"display_name"}, &kapselv1.Endpoint{DisplayName: "after", MaxBodyBytes: 5},
			func(want *kapselv1.Endpoint) { want.DisplayName = "after" }},
		{"what is left out goes back to its default", []string{"max_body_bytes", "payload_format"}, &kapselv1.Endpoint{},
			func(want *kapselv1.Endpoint) {
				want.MaxBodyBytes, want.PayloadFormat = 1<<20, kapselv1.PayloadFormat_PAYLOAD_FORMAT_ANY
			}},
		{"a field of a field", []string{"deduplication.window"}, &kapselv1.Endpoint{Deduplication: &kapselv1.Deduplication{Window: durationpb.New(time.Minute)}},
			func(want *kapselv1.Endpoint) { want.Deduplication.Window = durationpb.New(time.Minute) }},
		{"the event type and the state", []string{"event_type_source", "state"},
			&kapselv1.Endpoint{EventTypeSource: &kapselv1.EventTypeSource{Kind: kapselv1.EventTypeSourceKind_EVENT_TYPE_SOURCE_KIND_JSON_PATH, JsonPath: "kind"},
				State: kapselv1.EndpointState_ENDPOINT_STATE_DISABLED},
			func(want *kapselv1.Endpoint) {
				want.EventTypeSource = &kapselv1.EventTypeSource{Kind: kapselv1.EventTypeSourceKind_EVENT_TYPE_SOURCE_KIND_JSON_PATH, JsonPath: "kind"}
				want.State = kapselv1.EndpointState_ENDPOINT_STATE_DISABLED
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := proto.CloneOf(before)
			test.change(want)
			after := must(a.endpoints.UpdateEndpoint(t.Context(), &kapselv1.UpdateEndpointRequest{
				EndpointId: before.Id, Endpoint: test.given, UpdateMask: mask(test.paths...), Etag: before.Etag,
			}))(t).Endpoint
			if diff := cmp.Diff(want, after, protocmp.Transform(), protocmp.IgnoreFields(want, "etag", "update_time")); diff != "" {
				t.Error(diff)
			}
			if after.Etag == before.Etag {
				t.Error("the etag is as before")
			}
			got := must(a.endpoints.GetEndpoint(t.Context(), &kapselv1.GetEndpointRequest{EndpointId: before.Id}))(t).Endpoint
			if diff := cmp.Diff(after, got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			if routed := r.routedEndpoint(after); routed.MaxBodyBytes != int(after.MaxBodyBytes) || routed.Dedup.Window != after.Deduplication.Window.AsDuration() ||
				routed.Enabled != (after.State == kapselv1.EndpointState_ENDPOINT_STATE_ENABLED) {
				t.Errorf("not in force: %+v", routed)
			}
			before = after
		})
	}
	for name, test := range map[string]struct {
		request *kapselv1.UpdateEndpointRequest
		code    connect.Code
		reason  string
	}{
		"no field":     {&kapselv1.UpdateEndpointRequest{UpdateMask: mask()}, connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"output only":  {&kapselv1.UpdateEndpointRequest{UpdateMask: mask("ingest_url")}, connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"no such path": {&kapselv1.UpdateEndpointRequest{UpdateMask: mask("deduplication.nonsense")}, connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"etag":         {&kapselv1.UpdateEndpointRequest{UpdateMask: mask("display_name"), Etag: "old"}, connect.CodeAborted, "ETAG_MISMATCH"},
		"preset": {&kapselv1.UpdateEndpointRequest{UpdateMask: mask("verification"), Endpoint: &kapselv1.Endpoint{
			Verification: &kapselv1.Verification{Preset: "acme"}}}, connect.CodeInvalidArgument, "UNKNOWN_PRESET"},
		"half a rule": {&kapselv1.UpdateEndpointRequest{UpdateMask: mask("deduplication.header")}, connect.CodeInvalidArgument, "INVALID_REQUEST"},
	} {
		t.Run(name, func(t *testing.T) {
			test.request.EndpointId = before.Id
			if test.request.Endpoint == nil {
				test.request.Endpoint = &kapselv1.Endpoint{}
			}
			_, err := a.endpoints.UpdateEndpoint(t.Context(), test.request)
			wantReason(t, err, test.code, test.reason)
		})
	}
	got := must(a.endpoints.GetEndpoint(t.Context(), &kapselv1.GetEndpointRequest{EndpointId: before.Id}))(t).Endpoint
	if diff := cmp.Diff(before, got, protocmp.Transform()); diff != "" {
		t.Errorf("a refused update changed something: %s", diff)
	}
}

func TestRotatedEndpointSecretsAreTakenUntilTheOverlapEnds(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, first := r.endpoint(a, &kapselv1.Endpoint{Verification: &kapselv1.Verification{Preset: "github"}})
	ctx := t.Context()
	rotated := must(a.endpoints.RotateEndpointSecret(ctx, &kapselv1.RotateEndpointSecretRequest{EndpointId: e.Id}))(t)
	if rotated.Secret == "" || len(rotated.Endpoint.Secrets) != 2 || rotated.Endpoint.Secrets[0].ExpireTime != nil ||
		rotated.Endpoint.Secrets[1].ExpireTime == nil || rotated.Endpoint.Etag == e.Etag {
		t.Fatalf("rotated: %v", rotated)
	}
	if !r.takes(e, first) || !r.takes(e, rotated.Secret) || r.takes(e, "another") {
		t.Error("the endpoint does not take just the two secrets of the overlap")
	}
	given := must(a.endpoints.RotateEndpointSecret(ctx, &kapselv1.RotateEndpointSecretRequest{EndpointId: e.Id, Secret: "of my choice", Overlap: durationpb.New(0)}))(t)
	if given.Secret != "" || len(given.Endpoint.Secrets) != 1 || !r.takes(e, "of my choice") || r.takes(e, first) || r.takes(e, rotated.Secret) {
		t.Errorf("rotated without overlap: %v", given)
	}
	_, err := a.endpoints.RotateEndpointSecret(ctx, &kapselv1.RotateEndpointSecretRequest{EndpointId: e.Id, Secret: "of my choice"})
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_SECRET")
	for range maxSecretsAtOnce - 1 {
		must(a.endpoints.RotateEndpointSecret(ctx, &kapselv1.RotateEndpointSecretRequest{EndpointId: e.Id}))(t)
	}
	_, err = a.endpoints.RotateEndpointSecret(ctx, &kapselv1.RotateEndpointSecretRequest{EndpointId: e.Id})
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_SECRET")
	if !r.takes(e, "of my choice") {
		t.Error("the endpoint no longer takes a secret in its overlap")
	}
	plain, _ := r.endpoint(a, &kapselv1.Endpoint{})
	_, err = a.endpoints.RotateEndpointSecret(ctx, &kapselv1.RotateEndpointSecretRequest{EndpointId: plain.Id})
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_SECRET")
	stripe := must(a.endpoints.CreateEndpoint(ctx, &kapselv1.CreateEndpointRequest{
		Endpoint: &kapselv1.Endpoint{Verification: &kapselv1.Verification{Preset: "stripe"}}, Secrets: []string{"whsec_x"},
	}))(t).Endpoint
	_, err = a.endpoints.RotateEndpointSecret(ctx, &kapselv1.RotateEndpointSecretRequest{EndpointId: stripe.Id}) // the provider chooses it
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_SECRET")
}

func TestVerificationNeverOpensByAnUpdate(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	ctx := t.Context()
	verification := func(preset string) (*kapselv1.UpdateEndpointResponse, error) {
		return a.endpoints.UpdateEndpoint(ctx, &kapselv1.UpdateEndpointRequest{
			EndpointId: e.Id, Endpoint: &kapselv1.Endpoint{Verification: &kapselv1.Verification{Preset: preset}}, UpdateMask: mask("verification"),
		})
	}
	// From none to one with secrets: closed until it is given one.
	for _, preset := range []string{"github", "stripe"} {
		after := must(verification(preset))(t).Endpoint
		if len(after.Secrets) != 1 || r.routedEndpoint(e) == nil || r.routedEndpoint(e).Preset != preset {
			t.Fatalf("%s: %v", preset, after)
		}
		if err := r.routedEndpoint(e).Verifier.Verify(signature.Request{Body: []byte("x")}, time.Now()); err == nil {
			t.Errorf("%s: a webhook without signature is taken", preset)
		}
		must(verification("none"))(t)
	}
	must(verification("github"))(t)
	must(a.endpoints.RotateEndpointSecret(ctx, &kapselv1.RotateEndpointSecretRequest{EndpointId: e.Id, Secret: "not base64!", Overlap: durationpb.New(0)}))(t)
	if !r.takes(e, "not base64!") {
		t.Error("the given secret is not taken")
	}
	// The present secret has not the form of the new preset.
	_, err := verification("standard-webhooks")
	refused := wantReason(t, err, connect.CodeInvalidArgument, "INVALID_SECRET")
	if strings.Contains(refused.Message(), "not base64!") || !r.takes(e, "not base64!") {
		t.Errorf("message %q, or the endpoint changed", refused.Message())
	}
	// To none: the secrets go.
	if after := must(verification("none"))(t).Endpoint; len(after.Secrets) != 0 || r.routedEndpoint(e) == nil {
		t.Errorf("after the change to none: %v", after)
	}
	var left int
	if err := r.db.Engine().QueryRow(ctx, "select count(*) from endpoint_secrets").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d secrets are left, %v", left, err)
	}
}

func TestEndpointInUseIsDeletedByForceOnly(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	ctx := t.Context()
	receipt := must(a.ingest.Ingest(ctx, &kapselv1.IngestRequest{EndpointId: e.Id, Payload: []byte("x")}))(t).Receipt
	r.event(a, receipt.EventId, kapselv1.EventState_EVENT_STATE_DELIVERED)
	_, err := a.endpoints.DeleteEndpoint(ctx, &kapselv1.DeleteEndpointRequest{EndpointId: e.Id})
	wantReason(t, err, connect.CodeFailedPrecondition, "ENDPOINT_IN_USE")
	_, err = a.endpoints.DeleteEndpoint(ctx, &kapselv1.DeleteEndpointRequest{EndpointId: e.Id, Force: true, Etag: "old"})
	wantReason(t, err, connect.CodeAborted, "ETAG_MISMATCH")
	must(a.endpoints.DeleteEndpoint(ctx, &kapselv1.DeleteEndpointRequest{EndpointId: e.Id, Force: true, Etag: e.Etag}))(t)
	if r.routedEndpoint(e) != nil || r.routed(d) != nil {
		t.Error("the snapshot still has it")
	}
	for name, call := range endpointCalls(a, e.Id) {
		t.Run(name, func(t *testing.T) { wantReason(t, call(), connect.CodeNotFound, "ENDPOINT_NOT_FOUND") })
	}
	_, err = a.destinations.GetDestination(ctx, &kapselv1.GetDestinationRequest{DestinationId: d.Id})
	wantReason(t, err, connect.CodeNotFound, "DESTINATION_NOT_FOUND")
	_, err = a.ingest.Ingest(ctx, &kapselv1.IngestRequest{EndpointId: e.Id, Payload: []byte("x")})
	wantReason(t, err, connect.CodeNotFound, "ENDPOINT_NOT_FOUND")
	r.event(a, receipt.EventId, kapselv1.EventState_EVENT_STATE_DELIVERED) // events stay
}

func TestDestinationMadeWhileItsEndpointIsDeletedIsRefused(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	ctx := t.Context()
	for range 5 {
		e, _ := r.endpoint(a, &kapselv1.Endpoint{})
		var running sync.WaitGroup
		made, gone := make(chan error, 4), make(chan error, 1)
		for range 4 {
			running.Go(func() {
				_, err := a.destinations.CreateDestination(ctx, &kapselv1.CreateDestinationRequest{Destination: &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/"}})
				made <- err
			})
		}
		running.Go(func() {
			_, err := a.endpoints.DeleteEndpoint(ctx, &kapselv1.DeleteEndpointRequest{EndpointId: e.Id, Force: true})
			gone <- err
		})
		running.Wait()
		if err := <-gone; err != nil {
			t.Fatalf("delete: %v", err)
		}
		for range 4 {
			if err := <-made; err != nil {
				wantReason(t, err, connect.CodeNotFound, "ENDPOINT_NOT_FOUND")
			}
		}
	}
	if list := must(a.destinations.ListDestinations(ctx, &kapselv1.ListDestinationsRequest{}))(t); len(list.Destinations) != 0 {
		t.Errorf("%d destinations without an endpoint", len(list.Destinations))
	}
}

// endpointCalls are all calls about one endpoint.
func endpointCalls(a account, endpointID string) map[string]func() error {
	ctx := context.Background()
	return map[string]func() error{
		"Get": func() error {
			_, err := a.endpoints.GetEndpoint(ctx, &kapselv1.GetEndpointRequest{EndpointId: endpointID})
			return err
		},
		"Update": func() error {
			_, err := a.endpoints.UpdateEndpoint(ctx, &kapselv1.UpdateEndpointRequest{
				EndpointId: endpointID, Endpoint: &kapselv1.Endpoint{}, UpdateMask: mask("display_name"), Etag: "x",
			})
			return err
		},
		"Delete": func() error {
			_, err := a.endpoints.DeleteEndpoint(ctx, &kapselv1.DeleteEndpointRequest{EndpointId: endpointID, Etag: "x", Force: true})
			return err
		},
		"Rotate": func() error {
			_, err := a.endpoints.RotateEndpointSecret(ctx, &kapselv1.RotateEndpointSecretRequest{EndpointId: endpointID})
			return err
		},
	}
}

func TestNobodyChangesAnotherTenantsEndpoint(t *testing.T) {
	r := newRig(t)
	mine, other := r.tenant(), r.tenant()
	e, secret := r.endpoint(mine, &kapselv1.Endpoint{Verification: &kapselv1.Verification{Preset: "github"}})
	for _, call := range endpointCalls(other, e.Id) {
		wantReason(t, call(), connect.CodeNotFound, "ENDPOINT_NOT_FOUND")
	}
	for name, call := range endpointCalls(r.account(mine.id, r.apiKey(mine.id, "read")), e.Id) {
		if name != "Get" {
			wantReason(t, call(), connect.CodePermissionDenied, "SCOPE_MISSING")
		}
	}
	got := must(mine.endpoints.GetEndpoint(t.Context(), &kapselv1.GetEndpointRequest{EndpointId: e.Id}))(t).Endpoint
	if diff := cmp.Diff(e, got, protocmp.Transform()); diff != "" || !r.takes(e, secret) {
		t.Errorf("changed all the same: %s", diff)
	}
}
