package tenant

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/singleflight"

	"github.com/kapsel-dev/kapsel/store"
)

const (
	// CacheTTL is for how long an answer about a key is remembered, and so how long a revoked key can still work should the
	// notice of it be lost: each key in use is asked for again that often.
	CacheTTL = 1500 * time.Millisecond

	// NotifyChannel is where the database tells of keys that ended, and of tenants that may no longer use theirs.
	NotifyChannel = "kapsel_api_keys"

	// Some 2 MiB of keys in use, and as much of unknown ones.
	maxKnown   = 8192
	maxUnknown = 8192

	lookupTimeout = 5 * time.Second
)

// Authenticator finds out who calls. Make it with NewAuthenticator. Safe for concurrent use.
type Authenticator struct {
	db      *store.DB
	known   *cache
	unknown *cache // apart, so that made-up keys take no room from real ones
	lookups singleflight.Group
	// forgotten counts calls of Forget: an answer that was asked for before one is not remembered after it.
	forgotten atomic.Int64
	uses      uses
}

// NewAuthenticator makes an authenticator of the keys in db.
func NewAuthenticator(db *store.DB) *Authenticator {
	return &Authenticator{db: db, known: newCache(maxKnown), unknown: newCache(maxUnknown)}
}

// Authenticate returns who holds the key. Errors: ErrMissing, ErrMalformed, ErrInvalid, ErrExpired, or that of the database.
func (a *Authenticator) Authenticate(ctx context.Context, key string) (Principal, error) {
	if key == "" {
		return Principal{}, ErrMissing
	}
	if !wellFormed(key) {
		return Principal{}, ErrMalformed
	}
	hash, now := hashKey(key), time.Now()
	if known, found := a.known.get(hash, now); found {
		return known.principal, known.err
	}
	if unknown, found := a.unknown.get(hash, now); found {
		return Principal{}, unknown.err
	}
	// When an answer runs out under load, one request asks the database and the others wait for it.
	asking := string(hash[:]) + strconv.FormatInt(a.forgotten.Load(), 36) // never the answer of before Forget
	result := a.lookups.DoChan(asking, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTimeout)
		defer cancel()
		return a.lookUp(ctx, hash)
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return Principal{}, r.Err
		}
		found := r.Val.(answer)
		return found.principal, found.err
	case <-ctx.Done():
		return Principal{}, ctx.Err()
	}
}

// Forget drops all answers, so that what changed of keys and tenants is in force with their next use. Called for each notice
// of such a change; should one be lost, CacheTTL does it.
func (a *Authenticator) Forget() {
	a.forgotten.Add(1)
	a.known.clear()
	a.unknown.clear()
}

// lookUp asks the database. The error is the database's; what it says about the key is in the answer.
func (a *Authenticator) lookUp(ctx context.Context, hash [sha256.Size]byte) (answer, error) {
	epoch := a.forgotten.Load()
	asked := time.Now() // before the query, so that no answer is older than it says
	result := answer{until: asked.Add(CacheTTL)}
	row, err := a.db.FindAPIKey(ctx, a.db.Engine(), hash[:])
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		result.err = ErrInvalid
		if a.forgotten.Load() == epoch {
			a.unknown.put(hash, result, asked)
		}
		return result, nil
	case err == nil && subtle.ConstantTimeCompare(row.SecretHash, hash[:]) != 1:
		return answer{}, errors.New("look up API key: the database gave another one")
	case err != nil:
		return answer{}, fmt.Errorf("look up API key: %w", err)
	case row.RevokedAt != nil, row.ExpiresAt != nil && !asked.Before(*row.ExpiresAt):
		result.err = ErrExpired
	case row.TenantState == "deleting":
		result.err = ErrInvalid
	default:
		result.principal = Principal{TenantID: row.TenantID, KeyID: row.KeyID, Suspended: row.TenantState == "suspended"}
		for _, scope := range row.Scopes {
			result.principal.Scopes = append(result.principal.Scopes, Scope(scope))
		}
		if row.ExpiresAt != nil && row.ExpiresAt.Before(result.until) {
			result.until = *row.ExpiresAt
		}
		a.uses.note(row.TenantID, row.KeyID, asked)
	}
	if a.forgotten.Load() == epoch {
		a.known.put(hash, result, asked)
	}
	return result, nil
}
