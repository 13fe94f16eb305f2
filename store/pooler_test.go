package store_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

// Behind a pooler the role of a session can be dropped or leak into others. One that was not announced is refused in every mode,
// whatever it ignores, and so is one that pools by transaction, whatever was announced.
func TestPoolersThatMixSessionsAreRefused(t *testing.T) {
	direct := pgtest.New(t, migrate)
	for name, pooler := range map[string]struct{ mode, ignored, parameter string }{
		"not announced, by transaction":               {"transaction", "extra_float_digits", ""},
		"not announced, by transaction, lax":          {"transaction", "extra_float_digits,role,enable_seqscan,jit,lock_timeout", ""},
		"not announced, by session":                   {"session", "extra_float_digits", ""},
		"not announced, by session, lax":              {"session", "extra_float_digits,role,enable_seqscan,jit,lock_timeout", ""},
		"announced as by session, but by transaction": {"transaction", "extra_float_digits", "&pooler=session"},
		"announced as by session, but by statement":   {"statement", "extra_float_digits", "&pooler=session"},
	} {
		t.Run(name, func(t *testing.T) {
			pooled := pgtest.Bouncer(t, direct, pooler.mode, pooler.ignored) + pooler.parameter
			db, err := store.Open(t.Context(), pooled)
			if err == nil {
				db.Close()
			}
			if !errors.Is(err, store.ErrPooler) {
				t.Errorf("connected with %v: want %v", err, store.ErrPooler)
			}
			if _, err := store.Migrate(t.Context(), pooled); !errors.Is(err, store.ErrPooler) {
				t.Errorf("migrated with %v: want %v", err, store.ErrPooler)
			}
		})
	}
	if _, err := store.Open(t.Context(), direct+"&pooler=transaction"); err == nil {
		t.Error("a database URL that announces pooling by transaction was taken")
	}
}

// Behind a pooler that pools by session, each connection has its role, and the next client of the session has not.
func TestPoolingBySessionKeepsRolesApart(t *testing.T) {
	pooled := pgtest.Bouncer(t, pgtest.New(t, nil), "session", "extra_float_digits")
	if _, err := store.Migrate(t.Context(), pooled+"&pooler=session"); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), pooled+"&pooler=session")
	if err != nil {
		t.Fatal(err)
	}
	var role string
	read := func(q interface {
		Scan(dest ...any) error
	}, want string) {
		t.Helper()
		if err := q.Scan(&role); err != nil || role != want {
			t.Errorf("the role is %q, %v: want %q", role, err, want)
		}
	}
	const who = "select current_user::text"
	read(db.Engine().QueryRow(t.Context(), who), "kapsel_engine")
	err = db.AsTenant(t.Context(), id.New(), func(tx pgx.Tx) error {
		read(tx.QueryRow(t.Context(), who), "kapsel_tenant")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	next, err := pgx.Connect(t.Context(), pooled)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close(t.Context())
	read(next.QueryRow(t.Context(), who), "postgres")
}
