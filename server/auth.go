package server

import (
	"context"
	"errors"
	"strings"

	"connectrpc.com/connect/v2"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/tenant"
)

// public marks an rpc that asks for no API key.
const public tenant.Scope = ""

// scopes says which scope an rpc asks for, where the rule of scopeOf does not hold. They are those of the contract's
// comments.
var scopes = map[string]tenant.Scope{
	kapselv1connect.IngestServiceIngestProcedure:                   tenant.Ingest,
	kapselv1connect.IngestServiceIngestBatchProcedure:              tenant.Ingest,
	kapselv1connect.EventServiceEraseEventProcedure:                tenant.Admin,
	kapselv1connect.AttestationServiceGetLogProcedure:              public,
	kapselv1connect.AttestationServiceGetTreeHeadProcedure:         public,
	kapselv1connect.AttestationServiceListTreeHeadsProcedure:       public,
	kapselv1connect.AttestationServiceWatchTreeHeadsProcedure:      public,
	kapselv1connect.AttestationServiceGetInclusionProofProcedure:   public, // by attempt: see reader
	kapselv1connect.AttestationServiceGetConsistencyProofProcedure: public,
	kapselv1connect.AttestationServiceSealLogProcedure:             tenant.Operator,
	kapselv1connect.TenantServiceCreateTenantProcedure:             tenant.Operator,
	kapselv1connect.TenantServiceListTenantsProcedure:              tenant.Operator,
	kapselv1connect.TenantServiceUpdateTenantProcedure:             tenant.Admin,
	kapselv1connect.TenantServiceDeleteTenantProcedure:             tenant.Operator,
	kapselv1connect.TenantServiceCreateApiKeyProcedure:             tenant.Admin,
	kapselv1connect.TenantServiceListApiKeysProcedure:              tenant.Admin,
	kapselv1connect.TenantServiceRevokeApiKeyProcedure:             tenant.Admin,
	kapselv1connect.TenantServiceListAuditEntriesProcedure:         tenant.Admin,
	kapselv1connect.ListenServiceListenProcedure:                   tenant.Manage,
	kapselv1connect.ListenServiceReportProcedure:                   tenant.Manage,
}

// scopeOf is what an rpc asks for: what has no side effects is read, all else is managed, but for the exceptions.
func scopeOf(spec connect.Spec) tenant.Scope {
	if scope, found := scopes[spec.Procedure]; found {
		return scope
	}
	if !strings.HasPrefix(spec.Procedure, "/kapsel.v1.") {
		return public // reflection
	}
	if spec.IdempotencyLevel == connect.IdempotencyNoSideEffects {
		return tenant.Read
	}
	return tenant.Manage
}

type principalKey struct{}

// authenticate finds out who calls and whether they may, before anything of the request is read.
func (a *api) authenticate(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		scope := scopeOf(spec)
		info, _ := connect.CallInfoForServerContext(ctx)
		header := ""
		if info != nil {
			header = info.RequestHeader().Get("Authorization")
		}
		if scope == public && header == "" {
			return next(ctx, spec, stream)
		}
		principal, err := a.Authenticator.Authenticate(ctx, bearer(header))
		if err != nil {
			return authError(err, scope)
		}
		if scope != public {
			if err := principal.Authorize(scope); err != nil {
				return authError(err, scope)
			}
		}
		return next(context.WithValue(ctx, principalKey{}, principal), spec, stream)
	}
}

// bearer is the credential of an Authorization header (RFC 6750 section 2.1).
func bearer(header string) string {
	scheme, credential, found := strings.Cut(header, " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(credential)
}

func authError(err error, scope tenant.Scope) error {
	switch {
	case errors.Is(err, tenant.ErrMissing):
		return refuse(kapselv1.ErrorReason_ERROR_REASON_API_KEY_MISSING, "no API key: send the header Authorization: Bearer <key>")
	case errors.Is(err, tenant.ErrInvalid):
		return refuse(kapselv1.ErrorReason_ERROR_REASON_API_KEY_INVALID, "the API key is not known: check for a truncated copy")
	case errors.Is(err, tenant.ErrExpired):
		return refuse(kapselv1.ErrorReason_ERROR_REASON_API_KEY_EXPIRED, "the API key has expired or was revoked: create a new one")
	case errors.Is(err, tenant.ErrScope):
		return refuse(kapselv1.ErrorReason_ERROR_REASON_SCOPE_MISSING, "the API key lacks the scope %s", strings.ToUpper(string(scope)))
	case errors.Is(err, tenant.ErrSuspended):
		return refuse(kapselv1.ErrorReason_ERROR_REASON_TENANT_SUSPENDED, "the tenant is suspended: ask the operator")
	}
	return err
}

// caller is who called an rpc that is not public.
func caller(ctx context.Context) tenant.Principal {
	principal, _ := ctx.Value(principalKey{}).(tenant.Principal)
	return principal
}

// reader is who called a public rpc for something that is a tenant's.
func reader(ctx context.Context) (tenant.Principal, error) {
	principal, found := ctx.Value(principalKey{}).(tenant.Principal)
	if !found {
		return principal, authError(tenant.ErrMissing, tenant.Read)
	}
	if err := principal.Authorize(tenant.Read); err != nil {
		return principal, authError(err, tenant.Read)
	}
	return principal, nil
}
