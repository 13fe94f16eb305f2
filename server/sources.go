package server

import (
	"context"
	"crypto/sha256"
	"net/http"
	"time"

	"github.com/google/uuid"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/limit"
	"github.com/kapsel-dev/kapsel/internal/tenant"
)

// sourceOf is who sends a request to an endpoint, before anything is verified.
func sourceOf(r *http.Request, endpointID uuid.UUID) limit.Source {
	return limit.NewSource(remoteHost(r.RemoteAddr), endpointID)
}

// unknownEndpoints is who asks for endpoints that are not there, or not enabled.
func unknownEndpoints(r *http.Request) limit.Source { return sourceOf(r, limit.UnknownEndpoints) }

// identify finds out whose the key is. Who has failed too often is asked to wait, before the database is asked; a key that
// was good from that address within a day is looked at in any case, whoever else shares the address.
func (a *api) identify(ctx context.Context, key string) (tenant.Principal, error) {
	address := peer(ctx)
	anyKey, thisKey := limit.NewSource(address, limit.APIKeys), limit.NewSource(address, keyScope(key))
	if wait := a.Sources.Blocked(anyKey); wait > 0 && !a.Sources.IsGood(thisKey) {
		return tenant.Principal{}, blockedRefusal(wait)
	}
	principal, err := a.Authenticator.Authenticate(ctx, key)
	switch {
	case err == nil:
		a.Sources.Proved(thisKey)
	case tenant.IsRefusal(err):
		a.Sources.Failed(anyKey)
	}
	return principal, err
}

// keyScope stands for an API key in what is remembered of sources.
func keyScope(key string) uuid.UUID {
	hash := sha256.Sum256([]byte(key))
	return uuid.UUID(hash[:16])
}

// blockedProblem is the answer to a source that has failed too often to be listened to.
func blockedProblem(wait time.Duration) *problem {
	r := blockedRefusal(wait)
	return &problem{status: http.StatusTooManyRequests, reason: r.reason, detail: r.message, retry: wait}
}

func blockedRefusal(wait time.Duration) *refusal {
	return &refusal{
		reason:  kapselv1.ErrorReason_ERROR_REASON_RATE_LIMITED,
		message: "too many requests from this address could not be verified: check the address, signing secret or API key, and come again later",
		retry:   wait,
	}
}
