package tenant

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrate(ctx context.Context, url string) error {
	_, err := store.Migrate(ctx, url)
	return err
}

// rig is an authenticator on a database with one tenant.
type rig struct {
	*Authenticator
	t      *testing.T
	tenant uuid.UUID
}

func newRig(t *testing.T) *rig {
	t.Helper()
	db, err := store.Open(t.Context(), pgtest.New(t, migrate))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	r := &rig{Authenticator: NewAuthenticator(db), t: t, tenant: id.New()}
	if err := db.CreateTenant(t.Context(), db.Engine(), r.tenant, "test"); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) key(expires *time.Time, scopes ...string) Key {
	r.t.Helper()
	key := NewKey()
	err := r.db.CreateAPIKey(r.t.Context(), r.db.Engine(), store.CreateAPIKeyParams{
		TenantID: r.tenant, KeyID: id.New(), Hint: key.Hint(), SecretHash: key.Hash(), Scopes: scopes, ExpiresAt: expires,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return key
}

func (r *rig) exec(sql string, arguments ...any) {
	r.t.Helper()
	if _, err := r.db.Engine().Exec(r.t.Context(), sql, arguments...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) want(key string, want error) Principal {
	r.t.Helper()
	principal, err := r.Authenticate(r.t.Context(), key)
	if !errors.Is(err, want) || (want == nil) != (err == nil) {
		r.t.Fatalf("got error %v, want %v", err, want)
	}
	return principal
}

func TestKeyStandsForItsTenant(t *testing.T) {
	r := newRig(t)
	principal := r.want(r.key(nil, "ingest", "read").Text(), nil)
	if principal.TenantID != r.tenant || !slices.Equal(principal.Scopes, []Scope{Ingest, Read}) || principal.Suspended {
		t.Errorf("got %+v", principal)
	}
	r.want("", ErrMissing)
	r.want("kps_nonsense", ErrMalformed)
	r.want(NewKey().Text(), ErrInvalid)
	past := time.Now().Add(-time.Second)
	r.want(r.key(&past, "read").Text(), ErrExpired)
}

func TestRevokedKeyEndsWithinTwoSeconds(t *testing.T) {
	r := newRig(t)
	key := r.key(nil, "read").Text()
	r.want(key, nil)
	r.exec("update api_keys set revoked_at = now()")
	revoked := time.Now()
	for {
		_, err := r.Authenticate(t.Context(), key)
		if errors.Is(err, ErrExpired) {
			break
		}
		if took := time.Since(revoked); err != nil || took > CacheTTL+500*time.Millisecond {
			t.Fatalf("%v after it was revoked: %v", took, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestCachedKeyExpiresInTime(t *testing.T) {
	r := newRig(t)
	soon := time.Now().Add(500 * time.Millisecond)
	key := r.key(&soon, "read").Text()
	r.want(key, nil)
	time.Sleep(time.Until(soon) + 10*time.Millisecond)
	r.want(key, ErrExpired)
}

func TestStateOfTheTenantCounts(t *testing.T) {
	r := newRig(t)
	r.exec("update tenants set state = 'suspended'")
	principal := r.want(r.key(nil, "admin").Text(), nil)
	if err := principal.Authorize(Read); err != nil {
		t.Errorf("a suspended tenant may not read: %v", err)
	}
	if err := principal.Authorize(Ingest); !errors.Is(err, ErrSuspended) {
		t.Errorf("a suspended tenant may ingest: %v", err)
	}
	r.exec("update tenants set state = 'deleting'")
	r.want(r.key(nil, "admin").Text(), ErrInvalid)
}

func TestManyRequestsAskTheDatabaseOnce(t *testing.T) {
	r := newRig(t)
	key := r.key(nil, "ingest").Text()
	r.want(key, nil)
	before := r.db.RoundTrips()
	var waiting sync.WaitGroup
	for range 200 {
		waiting.Go(func() {
			if _, err := r.Authenticate(t.Context(), key); err != nil {
				t.Error(err)
			}
		})
	}
	waiting.Wait()
	if asked := r.db.RoundTrips() - before; asked > 1 {
		t.Errorf("%d queries for 200 requests with one key", asked)
	}
	before = r.db.RoundTrips()
	made := NewKey().Text()
	for range 200 {
		r.want(made, ErrInvalid)
		r.want("kps_nonsense", ErrMalformed)
	}
	if asked := r.db.RoundTrips() - before; asked > 1 {
		t.Errorf("%d queries for 200 requests with a made-up key", asked)
	}
}

func TestCallerThatLeavesDoesNotSpoilTheLookup(t *testing.T) {
	r := newRig(t)
	key := r.key(nil, "read").Text()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Authenticate(gone, key); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	r.want(key, nil)
}

func TestScopes(t *testing.T) {
	for _, test := range []struct {
		has     []Scope
		may     []Scope
		mustNot []Scope
	}{
		{nil, nil, []Scope{Ingest, Read, Manage, Admin, Operator}},
		{[]Scope{Read}, []Scope{Read}, []Scope{Ingest, Manage, Admin, Operator}},
		{[]Scope{Ingest, Manage}, []Scope{Ingest, Manage}, []Scope{Read, Admin, Operator}},
		{[]Scope{Admin}, []Scope{Ingest, Read, Manage, Admin}, []Scope{Operator}},
		{[]Scope{Operator}, []Scope{Operator}, []Scope{Ingest, Read, Manage, Admin}},
	} {
		p := Principal{Scopes: test.has}
		for _, scope := range test.may {
			if err := p.Authorize(scope); err != nil {
				t.Errorf("%v: %s: %v", test.has, scope, err)
			}
		}
		for _, scope := range test.mustNot {
			if err := p.Authorize(scope); !errors.Is(err, ErrScope) {
				t.Errorf("%v: %s: %v, want ErrScope", test.has, scope, err)
			}
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache(100)
	now := time.Now()
	hash := func(i int) (h [sha256.Size]byte) {
		binary.BigEndian.PutUint64(h[:], uint64(i))
		return h
	}
	for i := range 1000 {
		c.put(hash(i), answer{until: now.Add(time.Minute)}, now)
		if _, found := c.get(hash(i), now); !found || len(c.answers) > 100 {
			t.Fatalf("answer %d: found %v, %d kept", i, found, len(c.answers))
		}
	}
	later := now.Add(2 * time.Minute)
	if _, found := c.get(hash(999), later); found {
		t.Error("an answer outlives its time")
	}
	c.put(hash(1000), answer{until: later.Add(time.Minute)}, later)
	if len(c.answers) != 1 {
		t.Errorf("%d answers are kept, all but one out of date", len(c.answers))
	}
}
