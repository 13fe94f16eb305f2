package server

import (
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/tenant"
)

// operator is an account with a key of the operator.
func (r *rig) operator() account {
	r.t.Helper()
	if err := r.db.EnsureOperatorTenant(r.t.Context(), r.db.Engine()); err != nil {
		r.t.Fatal(err)
	}
	return r.account(tenant.OperatorID, r.apiKey(tenant.OperatorID, "operator"))
}

func TestOperatorMakesTenantsAndTheirKeys(t *testing.T) {
	r := newRig(t)
	operator := r.operator()
	made := must(operator.tenants.CreateTenant(t.Context(), &kapselv1.CreateTenantRequest{Tenant: &kapselv1.Tenant{
		DisplayName: "Shop", Limits: &kapselv1.TenantLimits{IngestPerSecond: 5, IngestPerDay: 7, MaxEndpoints: 1},
	}}))(t).Tenant
	if made.DisplayName != "Shop" || made.State != kapselv1.TenantState_TENANT_STATE_ACTIVE || made.Limits.IngestPerSecond != 5 || made.Limits.MaxEndpoints != 1 {
		t.Errorf("made %v", made)
	}
	got := must(operator.tenants.GetTenant(t.Context(), &kapselv1.GetTenantRequest{TenantId: made.Id}))(t).Tenant
	if diff := cmp.Diff(made, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	second := must(operator.tenants.CreateTenant(t.Context(), &kapselv1.CreateTenantRequest{Tenant: &kapselv1.Tenant{}}))(t).Tenant
	first := must(operator.tenants.ListTenants(t.Context(), &kapselv1.ListTenantsRequest{PageSize: 1}))(t)
	next := must(operator.tenants.ListTenants(t.Context(), &kapselv1.ListTenantsRequest{PageSize: 1, PageToken: first.NextPageToken}))(t)
	if len(first.Tenants) != 1 || first.Tenants[0].Id != second.Id || len(next.Tenants) != 1 || next.Tenants[0].Id != made.Id || next.NextPageToken != "" {
		t.Errorf("listed %v, then %v", first, next)
	}

	expires := timestamppb.New(time.Now().Add(time.Hour).Truncate(time.Microsecond))
	created := must(operator.tenants.CreateApiKey(t.Context(), &kapselv1.CreateApiKeyRequest{TenantId: made.Id, ApiKey: &kapselv1.ApiKey{
		DisplayName: "administrator", Scopes: []kapselv1.ApiKeyScope{kapselv1.ApiKeyScope_API_KEY_SCOPE_ADMIN}, ExpireTime: expires,
	}}))(t)
	admin := r.account(must(id.Tenant.Parse(made.Id))(t), created.Secret)
	own := must(admin.tenants.GetTenant(t.Context(), &kapselv1.GetTenantRequest{}))(t).Tenant
	if own.Id != made.Id {
		t.Errorf("the key's tenant is %s", own.Id)
	}
	listed := must(admin.tenants.ListApiKeys(t.Context(), &kapselv1.ListApiKeysRequest{}))(t).ApiKeys
	if diff := cmp.Diff([]*kapselv1.ApiKey{created.ApiKey}, listed, protocmp.Transform()); diff != "" || created.ApiKey.Hint != created.Secret[:12] || !created.ApiKey.ExpireTime.AsTime().Equal(expires.AsTime()) {
		t.Errorf("listed %v: %s", listed, diff)
	}
	revoked := must(operator.tenants.RevokeApiKey(t.Context(), &kapselv1.RevokeApiKeyRequest{ApiKeyId: created.ApiKey.Id}))(t).ApiKey
	again := must(operator.tenants.RevokeApiKey(t.Context(), &kapselv1.RevokeApiKeyRequest{ApiKeyId: created.ApiKey.Id}))(t).ApiKey
	if revoked.RevokeTime == nil || !again.RevokeTime.AsTime().Equal(revoked.RevokeTime.AsTime()) {
		t.Errorf("revoked %v, then %v", revoked, again)
	}
	_, err := admin.tenants.GetTenant(t.Context(), &kapselv1.GetTenantRequest{})
	wantReason(t, err, connect.CodeUnauthenticated, "API_KEY_EXPIRED")
}

func TestUpdateOfATenant(t *testing.T) {
	r := newRig(t)
	operator, a := r.operator(), r.tenant()
	before := must(a.tenants.GetTenant(t.Context(), &kapselv1.GetTenantRequest{}))(t).Tenant
	renamed := must(a.tenants.UpdateTenant(t.Context(), &kapselv1.UpdateTenantRequest{
		Tenant: &kapselv1.Tenant{DisplayName: "Café"}, UpdateMask: mask("display_name"), Etag: before.Etag,
	}))(t).Tenant
	if renamed.DisplayName != "Café" || renamed.Etag == before.Etag {
		t.Errorf("renamed: %v", renamed)
	}
	_, err := a.tenants.UpdateTenant(t.Context(), &kapselv1.UpdateTenantRequest{Tenant: &kapselv1.Tenant{}, UpdateMask: mask("display_name"), Etag: before.Etag})
	wantReason(t, err, connect.CodeAborted, "ETAG_MISMATCH")
	_, err = a.tenants.UpdateTenant(t.Context(), &kapselv1.UpdateTenantRequest{Tenant: &kapselv1.Tenant{}, UpdateMask: mask("limits")})
	wantReason(t, err, connect.CodePermissionDenied, "SCOPE_MISSING")
	limited := must(operator.tenants.UpdateTenant(t.Context(), &kapselv1.UpdateTenantRequest{
		TenantId: before.Id, UpdateMask: mask("limits"), Tenant: &kapselv1.Tenant{Limits: &kapselv1.TenantLimits{IngestBurst: 3}},
	}))(t).Tenant
	if limited.Limits.IngestBurst != 3 || limited.DisplayName != "Café" {
		t.Errorf("limited: %v", limited)
	}
	_, err = operator.tenants.UpdateTenant(t.Context(), &kapselv1.UpdateTenantRequest{Tenant: &kapselv1.Tenant{}, UpdateMask: mask("state")})
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_REQUEST")
	for _, nobody := range []string{id.Tenant.Text(id.New()), id.Tenant.Text(tenant.OperatorID)} {
		_, err = operator.tenants.UpdateTenant(t.Context(), &kapselv1.UpdateTenantRequest{TenantId: nobody, Tenant: &kapselv1.Tenant{}, UpdateMask: mask("state")})
		wantReason(t, err, connect.CodeNotFound, "TENANT_NOT_FOUND")
	}
}

func TestAKeyOfATenantIsNeverTheOperators(t *testing.T) {
	r := newRig(t)
	operator, a := r.operator(), r.tenant()
	for _, who := range []account{operator, a} {
		_, err := who.tenants.CreateApiKey(t.Context(), &kapselv1.CreateApiKeyRequest{TenantId: id.Tenant.Text(a.id), ApiKey: &kapselv1.ApiKey{
			Scopes: []kapselv1.ApiKeyScope{kapselv1.ApiKeyScope_API_KEY_SCOPE_OPERATOR},
		}})
		wantReason(t, err, connect.CodeInvalidArgument, "INVALID_REQUEST")
	}
	if _, err := r.db.Engine().Exec(t.Context(), "update api_keys set scopes = scopes || '{operator}' where tenant_id = $1", a.id); err == nil {
		t.Error("the database lets a tenant's key have the operator's scope")
	}
	_, err := operator.endpoints.ListEndpoints(t.Context(), &kapselv1.ListEndpointsRequest{})
	wantReason(t, err, connect.CodePermissionDenied, "SCOPE_MISSING")
}
