package server

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/route"
)

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

// routed is what the snapshot has of a destination.
func (r *rig) routed(d *kapselv1.Destination) *route.Destination {
	r.t.Helper()
	return r.deps.Routes.Snapshot().Destination(must(id.Destination.Parse(d.Id))(r.t))
}

func TestUpdateChangesTheFieldsThatTheMaskNames(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	before := r.destination(a, &kapselv1.Destination{
		EndpointId: e.Id, Url: "https://example.com/a", DisplayName: "before", Timeout: durationpb.New(time.Second), MaxInFlight: 3,
		Filter:      &kapselv1.Filter{EventTypes: []string{"push"}, Expression: `payload.a == 1`},
		RetryPolicy: &kapselv1.RetryPolicy{Base: durationpb.New(time.Second), MaxAttempts: 4},
		Headers:     []*kapselv1.Header{{Name: "X-Team", Value: "a"}},
	})
	for _, test := range []struct {
		name   string
		paths  []string
		given  *kapselv1.Destination
		change func(want *kapselv1.Destination)
	}{
		{"one field, whatever else is given", []string{"display_name"},
			&kapselv1.Destination{DisplayName: "after", Url: "https://example.com/other", MaxInFlight: 9, State: kapselv1.DestinationState_DESTINATION_STATE_PAUSED},
			func(want *kapselv1.Destination) { want.DisplayName = "after" }},
		{"what is left out goes back to its default", []string{"timeout", "max_in_flight", "headers", "retry_policy"}, &kapselv1.Destination{},
			func(want *kapselv1.Destination) {
				want.Timeout, want.MaxInFlight, want.Headers, want.RetryPolicy = durationpb.New(15*time.Second), 64, nil, &kapselv1.RetryPolicy{}
			}},
		{"a field of a field", []string{"filter.expression", "retry_policy.max_attempts"},
			&kapselv1.Destination{Filter: &kapselv1.Filter{Expression: "true", EventTypes: []string{"other"}}, RetryPolicy: &kapselv1.RetryPolicy{MaxAttempts: 7}},
			func(want *kapselv1.Destination) { want.Filter.Expression, want.RetryPolicy.MaxAttempts = "true", 7 }},
		{"a field of a field that is left out", []string{"filter.event_types"}, &kapselv1.Destination{},
			func(want *kapselv1.Destination) { want.Filter.EventTypes = nil }},
		{"the URL and the filter", []string{"url", "filter"},
			&kapselv1.Destination{Url: "https://example.com/b", Filter: &kapselv1.Filter{EventTypes: []string{"pull*"}}},
			func(want *kapselv1.Destination) {
				want.Url, want.Filter = "https://example.com/b", &kapselv1.Filter{EventTypes: []string{"pull*"}}
			}},
	} {
		t.Run(test.name, func(t *testing.T) {
			want := proto.CloneOf(before)
			test.change(want)
			after := must(a.destinations.UpdateDestination(t.Context(), &kapselv1.UpdateDestinationRequest{
				DestinationId: before.Id, Destination: test.given, UpdateMask: mask(test.paths...), Etag: before.Etag,
			}))(t).Destination
			if diff := cmp.Diff(want, after, protocmp.Transform(), protocmp.IgnoreFields(want, "etag", "update_time")); diff != "" {
				t.Error(diff)
			}
			if after.Etag == before.Etag || !after.UpdateTime.AsTime().After(before.UpdateTime.AsTime()) {
				t.Errorf("etag %q, update time %v: as before", after.Etag, after.UpdateTime.AsTime())
			}
			got := must(a.destinations.GetDestination(t.Context(), &kapselv1.GetDestinationRequest{DestinationId: before.Id}))(t).Destination
			if diff := cmp.Diff(after, got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
			if routed := r.routed(after); routed.URL != after.Url || routed.Filter.Expression() != after.Filter.Expression ||
				routed.Timeout != after.Timeout.AsDuration() {
				t.Errorf("not in force: %+v", routed)
			}
			before = after
		})
	}
	routed := r.routed(before)
	if !routed.Filter.MatchesType("pull_request") || routed.Filter.MatchesType("push") {
		t.Error("the route has another filter")
	}
}

func TestUpdatesThatAreRefused(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/", RetryPolicy: &kapselv1.RetryPolicy{Base: durationpb.New(time.Second)}})
	for name, test := range map[string]struct {
		paths  []string
		given  *kapselv1.Destination
		etag   string
		code   connect.Code
		reason string
	}{
		"no mask":         {nil, &kapselv1.Destination{}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"state":           {[]string{"state"}, &kapselv1.Destination{State: 2}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"endpoint":        {[]string{"endpoint_id"}, &kapselv1.Destination{EndpointId: e.Id}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"secrets":         {[]string{"secrets"}, &kapselv1.Destination{}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"all":             {[]string{"*"}, &kapselv1.Destination{}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"unknown":         {[]string{"nonsense"}, &kapselv1.Destination{}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"unknown within":  {[]string{"filter.nonsense"}, &kapselv1.Destination{}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"within a list":   {[]string{"headers.name"}, &kapselv1.Destination{}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"no URL":          {[]string{"url"}, &kapselv1.Destination{}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"blocked":         {[]string{"url"}, &kapselv1.Destination{Url: "http://169.254.169.254/"}, "", connect.CodeInvalidArgument, "ADDRESS_BLOCKED"},
		"expression":      {[]string{"filter"}, &kapselv1.Destination{Filter: &kapselv1.Filter{Expression: "1"}}, "", connect.CodeInvalidArgument, "INVALID_EXPRESSION"},
		"header":          {[]string{"headers"}, &kapselv1.Destination{Headers: []*kapselv1.Header{{Name: "host", Value: "x"}}}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"together":        {[]string{"retry_policy.schedule"}, &kapselv1.Destination{RetryPolicy: &kapselv1.RetryPolicy{Schedule: []*durationpb.Duration{durationpb.New(time.Second)}}}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"another etag":    {[]string{"display_name"}, &kapselv1.Destination{}, "x", connect.CodeAborted, "ETAG_MISMATCH"},
		"NUL":             {[]string{"display_name"}, &kapselv1.Destination{DisplayName: "a\x00"}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
		"NUL in a filter": {[]string{"filter"}, &kapselv1.Destination{Filter: &kapselv1.Filter{EventTypes: []string{"a\x00"}}}, "", connect.CodeInvalidArgument, "INVALID_REQUEST"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := a.destinations.UpdateDestination(t.Context(), &kapselv1.UpdateDestinationRequest{
				DestinationId: d.Id, Destination: test.given, UpdateMask: mask(test.paths...), Etag: test.etag,
			})
			wantReason(t, err, test.code, test.reason)
		})
	}
	got := must(a.destinations.GetDestination(t.Context(), &kapselv1.GetDestinationRequest{DestinationId: d.Id}))(t).Destination
	if diff := cmp.Diff(d, got, protocmp.Transform()); diff != "" {
		t.Errorf("changed all the same: %s", diff)
	}
}

func TestRefusedExpressionSaysWhereAndWhatToDo(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	_, err := a.destinations.CreateDestination(t.Context(), &kapselv1.CreateDestinationRequest{Destination: &kapselv1.Destination{
		EndpointId: e.Id, Url: "https://example.com/", Filter: &kapselv1.Filter{Expression: `event_type == "a" && body.a == 1`},
	}})
	refused := wantReason(t, err, connect.CodeInvalidArgument, "INVALID_EXPRESSION")
	fields := detailOf[*errdetails.BadRequest](t, refused).GetFieldViolations()
	if len(fields) != 1 || fields[0].Field != "destination.filter.expression" ||
		!strings.Contains(refused.Message(), "line 1, column 22: undeclared reference to 'body'") || !strings.Contains(refused.Message(), "payload") {
		t.Errorf("%q, fields %v", refused.Message(), fields)
	}
}

func TestUpdatesAtTheSameTimeTakeTurns(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/"})
	const n = 8
	var running sync.WaitGroup
	results := make(chan error, 2*n)
	for i := range n {
		running.Go(func() {
			_, err := a.destinations.UpdateDestination(t.Context(), &kapselv1.UpdateDestinationRequest{
				DestinationId: d.Id, Destination: &kapselv1.Destination{DisplayName: fmt.Sprint(i)}, UpdateMask: mask("display_name"), Etag: d.Etag,
			})
			results <- err
		})
	}
	running.Wait()
	won := 0
	for range n {
		if err := <-results; err == nil {
			won++
		} else {
			wantReason(t, err, connect.CodeAborted, "ETAG_MISMATCH")
		}
	}
	if won != 1 {
		t.Errorf("%d of %d updates from the same etag went through, want 1", won, n)
	}
	// Without etags all go through, and none undoes another one's field.
	for i, path := range []string{"display_name", "max_in_flight", "timeout", "connect_timeout"} {
		running.Go(func() {
			_, err := a.destinations.UpdateDestination(t.Context(), &kapselv1.UpdateDestinationRequest{
				DestinationId: d.Id, UpdateMask: mask(path),
				Destination: &kapselv1.Destination{DisplayName: "last", MaxInFlight: 7, Timeout: durationpb.New(2 * time.Second), ConnectTimeout: durationpb.New(time.Second)},
			})
			if err != nil {
				t.Errorf("update %d: %v", i, err)
			}
		})
	}
	running.Wait()
	got := must(a.destinations.GetDestination(t.Context(), &kapselv1.GetDestinationRequest{DestinationId: d.Id}))(t).Destination
	if got.DisplayName != "last" || got.MaxInFlight != 7 || got.Timeout.AsDuration() != 2*time.Second || got.ConnectTimeout.AsDuration() != time.Second {
		t.Errorf("an update was undone: %v", got)
	}
}

func TestPauseHoldsAndResumeReleases(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	ctx := t.Context()
	paused := must(a.destinations.PauseDestination(ctx, &kapselv1.PauseDestinationRequest{DestinationId: d.Id, Reason: "they move house"}))(t).Destination
	if paused.State != kapselv1.DestinationState_DESTINATION_STATE_PAUSED || !strings.Contains(paused.StateDetail, "they move house") || paused.Etag == d.Etag {
		t.Errorf("paused: %v", paused)
	}
	again := must(a.destinations.PauseDestination(ctx, &kapselv1.PauseDestinationRequest{DestinationId: d.Id}))(t).Destination
	if diff := cmp.Diff(paused, again, protocmp.Transform()); diff != "" {
		t.Errorf("pausing twice: %s", diff)
	}
	if r.routed(d).Active {
		t.Error("the pause is not in force")
	}
	receipt := must(a.ingest.Ingest(ctx, &kapselv1.IngestRequest{EndpointId: e.Id, Payload: []byte("x")}))(t).Receipt
	deliveries := must(a.deliveries.ListDeliveries(ctx, &kapselv1.ListDeliveriesRequest{EventId: receipt.EventId}))(t).Deliveries
	if len(deliveries) != 1 || deliveries[0].State != kapselv1.DeliveryState_DELIVERY_STATE_HELD || !strings.Contains(deliveries[0].StateDetail, "they move house") {
		t.Errorf("deliveries of a paused destination: %v", deliveries)
	}
	resumed := must(a.destinations.ResumeDestination(ctx, &kapselv1.ResumeDestinationRequest{DestinationId: d.Id}))(t).Destination
	if resumed.State != kapselv1.DestinationState_DESTINATION_STATE_ENABLED || resumed.StateDetail != "" || !r.routed(d).Active {
		t.Errorf("resumed: %v", resumed)
	}
	delivery := must(a.deliveries.GetDelivery(ctx, &kapselv1.GetDeliveryRequest{DeliveryId: deliveries[0].Id}))(t).Delivery
	if delivery.State != kapselv1.DeliveryState_DELIVERY_STATE_PENDING {
		t.Errorf("delivery of a resumed destination: %v", delivery)
	}
}

func TestResumeEndsADisabledState(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/"})
	ctx := t.Context()
	if _, err := r.db.Engine().Exec(ctx, "update destinations set state = 'disabled', disable_reason = 1, state_detail = 'it answered 410'"); err != nil {
		t.Fatal(err)
	}
	// It is held back already, and the server's reason stays.
	paused := must(a.destinations.PauseDestination(ctx, &kapselv1.PauseDestinationRequest{DestinationId: d.Id, Reason: "mine"}))(t).Destination
	if paused.State != kapselv1.DestinationState_DESTINATION_STATE_DISABLED || paused.DisableReason != kapselv1.DisableReason_DISABLE_REASON_GONE ||
		paused.StateDetail != "it answered 410" {
		t.Errorf("a disabled destination after a pause: %v", paused)
	}
	resumed := must(a.destinations.ResumeDestination(ctx, &kapselv1.ResumeDestinationRequest{DestinationId: d.Id}))(t).Destination
	if resumed.State != kapselv1.DestinationState_DESTINATION_STATE_ENABLED || resumed.DisableReason != 0 || resumed.StateDetail != "" {
		t.Errorf("resumed: %v", resumed)
	}
}

func TestDeletedDestinationIsGone(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/"})
	kept := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	ctx := t.Context()
	_, err := a.destinations.DeleteDestination(ctx, &kapselv1.DeleteDestinationRequest{DestinationId: d.Id, Etag: "x"})
	wantReason(t, err, connect.CodeAborted, "ETAG_MISMATCH")
	must(a.destinations.DeleteDestination(ctx, &kapselv1.DeleteDestinationRequest{DestinationId: d.Id, Etag: d.Etag}))(t)
	if r.routed(d) != nil || !r.deps.Routes.Snapshot().Removed(must(id.Destination.Parse(d.Id))(t)) {
		t.Error("the snapshot still has it")
	}
	for name, call := range destinationCalls(a, d.Id) {
		t.Run(name, func(t *testing.T) { wantReason(t, call(), connect.CodeNotFound, "DESTINATION_NOT_FOUND") })
	}
	// The endpoint goes on with the other one.
	receipt := must(a.ingest.Ingest(ctx, &kapselv1.IngestRequest{EndpointId: e.Id, Payload: []byte("x")}))(t).Receipt
	event := r.event(a, receipt.EventId, kapselv1.EventState_EVENT_STATE_DELIVERED)
	deliveries := must(a.deliveries.ListDeliveries(ctx, &kapselv1.ListDeliveriesRequest{EventId: event.Id}))(t).Deliveries
	if len(deliveries) != 1 || deliveries[0].DestinationId != kept.Id {
		t.Errorf("deliveries: %v", deliveries)
	}
}

// destinationCalls are all calls about one destination.
func destinationCalls(a account, destinationID string) map[string]func() error {
	return map[string]func() error{
		"Get": func() error {
			_, err := a.destinations.GetDestination(context.Background(), &kapselv1.GetDestinationRequest{DestinationId: destinationID})
			return err
		},
		"Update": func() error {
			_, err := a.destinations.UpdateDestination(context.Background(), &kapselv1.UpdateDestinationRequest{
				DestinationId: destinationID, Destination: &kapselv1.Destination{}, UpdateMask: mask("display_name"), Etag: "x",
			})
			return err
		},
		"Delete": func() error {
			_, err := a.destinations.DeleteDestination(context.Background(), &kapselv1.DeleteDestinationRequest{DestinationId: destinationID, Etag: "x"})
			return err
		},
		"Rotate": func() error {
			_, err := a.destinations.RotateDestinationSecret(context.Background(), &kapselv1.RotateDestinationSecretRequest{DestinationId: destinationID, Secret: "x"})
			return err
		},
		"Pause": func() error {
			_, err := a.destinations.PauseDestination(context.Background(), &kapselv1.PauseDestinationRequest{DestinationId: destinationID})
			return err
		},
		"Resume": func() error {
			_, err := a.destinations.ResumeDestination(context.Background(), &kapselv1.ResumeDestinationRequest{DestinationId: destinationID})
			return err
		},
	}
}

func TestNobodyChangesAnotherTenantsDestination(t *testing.T) {
	r := newRig(t)
	mine, other := r.tenant(), r.tenant()
	e, _ := r.endpoint(mine, &kapselv1.Endpoint{})
	d := r.destination(mine, &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/"})
	for _, call := range destinationCalls(other, d.Id) {
		wantReason(t, call(), connect.CodeNotFound, "DESTINATION_NOT_FOUND")
	}
	reader := r.account(mine.id, r.apiKey(mine.id, "read"))
	for name, call := range destinationCalls(reader, d.Id) {
		if name != "Get" {
			wantReason(t, call(), connect.CodePermissionDenied, "SCOPE_MISSING")
		}
	}
	got := must(mine.destinations.GetDestination(t.Context(), &kapselv1.GetDestinationRequest{DestinationId: d.Id}))(t).Destination
	if diff := cmp.Diff(d, got, protocmp.Transform()); diff != "" {
		t.Errorf("changed all the same: %s", diff)
	}
}

func TestRotatedSecretsSignTogetherUntilTheOverlapEnds(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/"})
	ctx := t.Context()
	signatures := func() int { return len(strings.Fields(r.routed(d).Signer.Sign("evt_1", time.Now(), []byte("x")))) }

	first := must(a.destinations.RotateDestinationSecret(ctx, &kapselv1.RotateDestinationSecretRequest{DestinationId: d.Id}))(t)
	if !strings.HasPrefix(first.Secret, "whsec_") || len(first.Destination.Secrets) != 2 || first.Destination.Etag == d.Etag {
		t.Fatalf("rotated: %v", first)
	}
	now, old := first.Destination.Secrets[0], first.Destination.Secrets[1]
	if now.ExpireTime != nil || old.Id != d.Secrets[0].Id || time.Until(old.ExpireTime.AsTime()).Round(time.Minute) != 24*time.Hour {
		t.Errorf("secrets: %v", first.Destination.Secrets)
	}
	if got := signatures(); got != 2 {
		t.Errorf("%d signatures, want 2", got)
	}
	given := "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	second := must(a.destinations.RotateDestinationSecret(ctx, &kapselv1.RotateDestinationSecretRequest{
		DestinationId: d.Id, Secret: given, Overlap: durationpb.New(0),
	}))(t)
	if second.Secret != "" || len(second.Destination.Secrets) != 1 || signatures() != 1 {
		t.Errorf("rotated without overlap: %v, %d signatures", second, signatures())
	}
	for name, secret := range map[string]string{"in use": given, "of another scheme": "whsk_abc", "short": "whsec_AAAA", "not base64": "whsec_!!"} {
		_, err := a.destinations.RotateDestinationSecret(ctx, &kapselv1.RotateDestinationSecretRequest{DestinationId: d.Id, Secret: secret})
		refused := wantReason(t, err, connect.CodeInvalidArgument, "INVALID_SECRET")
		if strings.Contains(refused.Message(), secret) {
			t.Errorf("%s: message %q quotes the secret", name, refused.Message())
		}
	}
	for range maxSecretsAtOnce - 1 {
		must(a.destinations.RotateDestinationSecret(ctx, &kapselv1.RotateDestinationSecretRequest{DestinationId: d.Id}))(t)
	}
	_, err := a.destinations.RotateDestinationSecret(ctx, &kapselv1.RotateDestinationSecretRequest{DestinationId: d.Id})
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_SECRET")
	if got := signatures(); got != maxSecretsAtOnce {
		t.Errorf("%d signatures, want %d", got, maxSecretsAtOnce)
	}
	last := must(a.destinations.RotateDestinationSecret(ctx, &kapselv1.RotateDestinationSecretRequest{DestinationId: d.Id, Overlap: durationpb.New(0)}))(t)
	if len(last.Destination.Secrets) != 1 || signatures() != 1 {
		t.Errorf("%d secrets, %d signatures", len(last.Destination.Secrets), signatures())
	}
}

func TestSchemeChangesToPublicKeysWithAnOverlap(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: "https://example.com/"})
	ctx := t.Context()
	scheme := func(s kapselv1.SigningScheme) (*kapselv1.UpdateDestinationResponse, error) {
		return a.destinations.UpdateDestination(ctx, &kapselv1.UpdateDestinationRequest{
			DestinationId: d.Id, Destination: &kapselv1.Destination{Signing: &kapselv1.Signing{Scheme: s}}, UpdateMask: mask("signing.scheme"),
		})
	}
	after := must(scheme(kapselv1.SigningScheme_SIGNING_SCHEME_V1A))(t).Destination
	if len(after.Secrets) != 2 || len(after.PublicKeys) != 1 || !strings.HasPrefix(after.PublicKeys[0], "whpk_") {
		t.Fatalf("after the change: %v", after)
	}
	got := strings.Fields(r.routed(d).Signer.Sign("evt_1", time.Now(), []byte("x")))
	slices.Sort(got)
	if len(got) != 2 || !strings.HasPrefix(got[0], "v1,") || !strings.HasPrefix(got[1], "v1a,") {
		t.Errorf("signs %q, want one of each scheme", got)
	}
	rotated := must(a.destinations.RotateDestinationSecret(ctx, &kapselv1.RotateDestinationSecretRequest{DestinationId: d.Id}))(t)
	if rotated.Secret != "" || len(rotated.Destination.PublicKeys) != 2 || rotated.Destination.PublicKeys[1] != after.PublicKeys[0] {
		t.Errorf("rotated: %v", rotated)
	}
	_, err := scheme(kapselv1.SigningScheme_SIGNING_SCHEME_V1)
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_REQUEST")
}
