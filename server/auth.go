package server

import (
	"context"
	"errors"
	"path"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect/v2"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/tenant"
)

// keyRecheck is how often the key of an open stream is looked at again: in memory mostly, see tenant.CacheTTL.
const keyRecheck = time.Second / 2

type principalKey struct{}

// authenticate finds out who calls and whether they may, before anything of the request is read.
func (a *api) authenticate(next connect.ServerFunc) connect.ServerFunc {
	return func(ctx context.Context, spec connect.Spec, stream connect.ServerStream) error {
		needed := accessTo(spec)
		info, _ := connect.CallInfoForServerContext(ctx)
		header := ""
		if info != nil {
			header = info.RequestHeader().Get("Authorization")
		}
		if needed.scope == public && header == "" {
			return next(ctx, spec, stream)
		}
		principal, err := a.identify(ctx, bearer(header))
		if err != nil {
			return authError(err, needed.scope)
		}
		if err := needed.check(principal); err != nil {
			return err
		}
		ctx = context.WithValue(ctx, principalKey{}, principal)
		ctx = context.WithValue(ctx, rpcKey{}, path.Base(spec.Procedure))
		if spec.StreamType == connect.StreamTypeUnary {
			return next(ctx, spec, stream)
		}
		return a.whileAllowed(ctx, bearer(header), needed, func(ctx context.Context) error { return next(ctx, spec, stream) })
	}
}

// whileAllowed runs a stream, and ends it when its caller's key does: a stream may live for days.
func (a *api) whileAllowed(ctx context.Context, key string, needed access, serve func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		ticker := time.NewTicker(keyRecheck)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			principal, err := a.Authenticator.Authenticate(ctx, key)
			if refused := needed.check(principal); err == nil && refused != nil {
				cancel(refused)
			} else if tenant.IsRefusal(err) { // not when the database is away: the stream outlives that
				cancel(authError(err, needed.scope))
			}
		}
	})
	err := serve(ctx)
	var refused *refusal
	if errors.As(context.Cause(ctx), &refused) {
		err = refused
	}
	cancel(nil)
	watching.Wait()
	return err
}

// bearer is the credential of an Authorization header (RFC 6750 section 2.1).
func bearer(header string) string {
	scheme, credential, found := strings.Cut(header, " ")
	if !found || !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(credential)
}

// authError says in the contract's words why a key does not open, and what to do about it.
func authError(err error, scope tenant.Scope) error {
	switch {
	case errors.Is(err, tenant.ErrMalformed):
		return refuse(kapselv1.ErrorReason_ERROR_REASON_API_KEY_INVALID,
			"this is not an API key, or not all of it: one is kps_ and 49 letters and digits; check for a truncated or mistyped copy")
	case errors.Is(err, tenant.ErrMissing):
		return refuse(kapselv1.ErrorReason_ERROR_REASON_API_KEY_MISSING, "no API key: send the header Authorization: Bearer <key>")
	case errors.Is(err, tenant.ErrInvalid):
		return refuse(kapselv1.ErrorReason_ERROR_REASON_API_KEY_INVALID, "the API key is not known: create one with CreateApiKey, or ask the tenant's administrator")
	case errors.Is(err, tenant.ErrExpired):
		return refuse(kapselv1.ErrorReason_ERROR_REASON_API_KEY_EXPIRED, "the API key has expired or was revoked: create a new one")
	case errors.Is(err, tenant.ErrScope):
		return refuse(kapselv1.ErrorReason_ERROR_REASON_SCOPE_MISSING, "the API key lacks the scope %s: use one that has it, or ask for it", strings.ToUpper(string(scope)))
	case errors.Is(err, tenant.ErrSuspended):
		return refuse(kapselv1.ErrorReason_ERROR_REASON_TENANT_SUSPENDED, "the tenant is suspended and may only read: ask the operator")
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
