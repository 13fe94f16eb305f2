package server

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/reflect/protoreflect"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/tenant"
)

func TestKeysThatDoNotOpen(t *testing.T) {
	r := newRig(t)
	a := r.tenant("read")
	list := func(key string) error {
		_, err := r.account(a.id, key).endpoints.ListEndpoints(t.Context(), &kapselv1.ListEndpointsRequest{})
		return err
	}
	if err := list(a.key); err != nil {
		t.Fatal(err)
	}
	wantReason(t, list(""), connect.CodeUnauthenticated, "API_KEY_MISSING")
	wantReason(t, list("nonsense"), connect.CodeUnauthenticated, "API_KEY_INVALID")
	wantReason(t, list(a.key[:len(a.key)-1]), connect.CodeUnauthenticated, "API_KEY_INVALID")
	wantReason(t, list(tenant.NewKey().Text()), connect.CodeUnauthenticated, "API_KEY_INVALID")

	_, err := a.endpoints.CreateEndpoint(t.Context(), &kapselv1.CreateEndpointRequest{Endpoint: &kapselv1.Endpoint{}})
	missing := wantReason(t, err, connect.CodePermissionDenied, "SCOPE_MISSING")
	if !strings.Contains(missing.Message(), "MANAGE") {
		t.Errorf("message %q does not name the scope", missing.Message())
	}
	_, err = a.ingest.Ingest(t.Context(), &kapselv1.IngestRequest{EndpointId: "ep_00000000000000000000000000"})
	wantReason(t, err, connect.CodePermissionDenied, "SCOPE_MISSING")
	if r.logged.contains(a.key) {
		t.Error("an API key is in the log")
	}
}

func TestSuspendedTenantMayRead(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	if _, err := r.db.Engine().Exec(t.Context(), "update tenants set state = 'suspended' where tenant_id = $1", a.id); err != nil {
		t.Fatal(err)
	}
	a = r.account(a.id, r.apiKey(a.id))
	if _, err := a.endpoints.GetEndpoint(t.Context(), &kapselv1.GetEndpointRequest{EndpointId: e.Id}); err != nil {
		t.Error(err)
	}
	_, err := a.ingest.Ingest(t.Context(), &kapselv1.IngestRequest{EndpointId: e.Id})
	wantReason(t, err, connect.CodePermissionDenied, "TENANT_SUSPENDED")
}

func TestLogIsPublicAndLeavesAreNot(t *testing.T) {
	r := newRig(t)
	anyone := r.account(r.tenant().id, "")
	if _, err := anyone.attestation.GetLog(t.Context(), &kapselv1.GetLogRequest{}); err != nil {
		t.Error(err)
	}
	attempt := "att_00000000000000000000000000"
	_, err := anyone.attestation.GetInclusionProof(t.Context(), &kapselv1.GetInclusionProofRequest{Leaf: &kapselv1.GetInclusionProofRequest_AttemptId{AttemptId: attempt}})
	wantReason(t, err, connect.CodeUnauthenticated, "API_KEY_MISSING")
	_, err = anyone.attestation.GetProofPackage(t.Context(), &kapselv1.GetProofPackageRequest{Subject: &kapselv1.GetProofPackageRequest_AttemptId{AttemptId: attempt}})
	wantReason(t, err, connect.CodeUnauthenticated, "API_KEY_MISSING")
	_, err = r.account(anyone.id, "wrong").attestation.GetLog(t.Context(), &kapselv1.GetLogRequest{})
	wantReason(t, err, connect.CodeUnauthenticated, "API_KEY_INVALID")
	_, err = r.tenant("manage").attestation.GetInclusionProof(t.Context(), &kapselv1.GetInclusionProofRequest{Leaf: &kapselv1.GetInclusionProofRequest_AttemptId{AttemptId: attempt}})
	wantReason(t, err, connect.CodePermissionDenied, "SCOPE_MISSING")
}

// The comment of each rpc, or of its service, names the scope. This table is that of the comments, and fails for an rpc
// that was added without a decision.
func TestEachRPCAsksForAScope(t *testing.T) {
	want := map[string]tenant.Scope{}
	for _, list := range []struct {
		scope tenant.Scope
		names string
	}{
		{tenant.Ingest, "Ingest IngestBatch"},
		{tenant.Read, `GetEndpoint ListEndpoints GetDestination ListDestinations GetDestinationHealth GetEvent ListEvents GetPayload WatchEvents
			GetDelivery ListDeliveries ListAttempts GetAttempt ListDeadLetters GetReplay ListReplays GetProofPackage ExportProofPackages
			GetTenant GetUsage`},
		{tenant.Manage, `CreateEndpoint UpdateEndpoint DeleteEndpoint RotateEndpointSecret CreateDestination UpdateDestination DeleteDestination
			RotateDestinationSecret PauseDestination ResumeDestination SendTest ReplayEvent RetryDelivery CancelDelivery ReplayDeadLetters
			CancelReplay Listen Report`},
		{tenant.Admin, "EraseEvent UpdateTenant CreateApiKey ListApiKeys RevokeApiKey ListAuditEntries"},
		{tenant.Operator, "SealLog CreateTenant ListTenants DeleteTenant"},
		{public, "GetLog GetTreeHead ListTreeHeads WatchTreeHeads GetInclusionProof GetConsistencyProof"},
	} {
		for _, name := range strings.Fields(list.names) {
			want[name] = list.scope
		}
	}
	for _, file := range []protoreflect.FileDescriptor{
		kapselv1.File_kapsel_v1_ingest_proto, kapselv1.File_kapsel_v1_endpoint_proto, kapselv1.File_kapsel_v1_destination_proto,
		kapselv1.File_kapsel_v1_event_proto, kapselv1.File_kapsel_v1_delivery_proto, kapselv1.File_kapsel_v1_attestation_proto,
		kapselv1.File_kapsel_v1_tenant_proto, kapselv1.File_kapsel_v1_listen_proto,
	} {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				method := service.Methods().Get(j)
				name := service.Name() + "/" + method.Name()
				scope, known := want[string(method.Name())]
				if got, found := accesses[string(name)]; !known || !found || got.scope != scope {
					t.Errorf("%s asks for %q (in the table: %v), want %q (decided here: %v)", name, got.scope, found, scope, known)
				}
			}
		}
	}
}

func TestPanicIsAnInternalError(t *testing.T) {
	r := newRig(t)
	a := &api{Deps: r.deps}
	call := a.translateErrors(func(context.Context, connect.Spec, connect.ServerStream) error { panic("on fire") })
	err := call(t.Context(), connect.Spec{Procedure: "/kapsel.v1.X/Y"}, nil)
	got := wantReason(t, err, connect.CodeInternal, "INTERNAL")
	if strings.Contains(got.Message(), "fire") || !r.logged.contains("on fire") {
		t.Errorf("message %q", got.Message())
	}
}

func TestCancelledCallIsNoInternalError(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := a.endpoints.ListEndpoints(ctx, &kapselv1.ListEndpointsRequest{}); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
		t.Errorf("got %v", err)
	}
	if r.logged.contains("internal error") {
		t.Error("logged as an error of the server")
	}
}
