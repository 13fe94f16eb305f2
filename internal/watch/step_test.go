package watch

import (
	"context"
	"slices"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const logID = 1

func open(t *testing.T) *store.DB {
	t.Helper()
	db, err := store.Open(t.Context(), pgtest.New(t, func(ctx context.Context, url string) error {
		_, err := store.Migrate(ctx, url)
		return err
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	if _, err := db.Engine().Exec(t.Context(), `insert into logs (log_id, origin) values ($1, 'test')`, logID); err != nil {
		t.Fatal(err)
	}
	return db
}

func insert(t *testing.T, tx store.DBTX, tenantID, eventID uuid.UUID) {
	t.Helper()
	if _, err := tx.Exec(t.Context(), `insert into events values ($1, $2, $3, now(), '', '', '', '', '', '', 'none', '')`, tenantID, eventID, uuid.New()); err != nil {
		t.Fatal(err)
	}
}

// all takes every step from p on.
func all(t *testing.T, db *store.DB, tenantID uuid.UUID, p Position) (ids []uuid.UUID, next Position) {
	t.Helper()
	for more := true; more; {
		err := pgx.BeginFunc(t.Context(), db.Engine(), func(tx pgx.Tx) (err error) {
			var some []uuid.UUID
			some, p, more, err = Step(t.Context(), db.Queries, tx, logID, tenantID, p)
			ids = append(ids, some...)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if p, err = Decode(p.Encode()); err != nil { // as a token goes out and comes back
			t.Fatal(err)
		}
	}
	return ids, p
}

// Events are committed in another order than their ids were made in, across looks: each is named once, by the first look after its commit.
func TestCommitsOutOfOrderAreNamedOnce(t *testing.T) {
	db := open(t)
	tenantID := uuid.New()
	first, second, third, fourth := id.New(), id.New(), id.New(), id.New()
	slow, err := db.Engine().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Rollback(context.WithoutCancel(t.Context()))
	insert(t, slow, tenantID, first)
	insert(t, db.Engine(), tenantID, second)

	p, err := Tip(t.Context(), db.Queries, db.Engine(), logID)
	if err != nil {
		t.Fatal(err)
	}
	insert(t, db.Engine(), tenantID, fourth)
	insert(t, db.Engine(), uuid.New(), id.New()) // of another tenant
	got, p := all(t, db, tenantID, p)
	if !slices.Equal(got, []uuid.UUID{fourth}) {
		t.Errorf("before the slow commit: %v, want %v", got, fourth)
	}
	if err := slow.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	insert(t, db.Engine(), tenantID, third)
	got, p = all(t, db, tenantID, p)
	if !slices.Equal(got, []uuid.UUID{first, third}) {
		t.Errorf("after the slow commit: %v, want %v and %v, not %v", got, first, third, second)
	}
	if got, _ = all(t, db, tenantID, p); len(got) != 0 {
		t.Errorf("with nothing new: %v", got)
	}
}

// More than a step holds is gone through in several, each resumable.
func TestLongStretchesAreTakenInSteps(t *testing.T) {
	db := open(t)
	tenantID := uuid.New()
	p, err := Tip(t.Context(), db.Queries, db.Engine(), logID)
	if err != nil {
		t.Fatal(err)
	}
	want := make([]uuid.UUID, 2*stepAnchors+1)
	for i := range want {
		want[i] = id.New()
	}
	_, err = db.Engine().Exec(t.Context(), `insert into events select $1, unnest($2::uuid[]), $1, now(), '', '', '', '', '', '', 'none', ''`, tenantID, want)
	if err != nil {
		t.Fatal(err)
	}
	got, p := all(t, db, tenantID, p)
	if !slices.Equal(got, want) {
		t.Errorf("%d events were named, want %d", len(got), len(want))
	}
	if got, _ = all(t, db, tenantID, p); len(got) != 0 {
		t.Errorf("%d were named again", len(got))
	}
}

func TestPositionsOfAnotherDatabaseAreRefused(t *testing.T) {
	db := open(t)
	p, err := Tip(t.Context(), db.Queries, db.Engine(), logID)
	if err != nil {
		t.Fatal(err)
	}
	for _, ahead := range []Position{{snapshot: p.snapshot, at: p.at, leaf: p.leaf + 1}, {snapshot: Snapshot{Xmin: 1 << 40, Xmax: 1 << 40}, at: p.at}} {
		err := pgx.BeginFunc(t.Context(), db.Engine(), func(tx pgx.Tx) error {
			_, _, _, err := Step(t.Context(), db.Queries, tx, logID, uuid.New(), ahead)
			return err
		})
		if err != ErrFuture {
			t.Errorf("%+v: %v", ahead, err)
		}
	}
}
