package tlog

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/store"
)

// The database dies under a running sealer and comes back: the sealer waits for it, and goes on with the same tree.
func TestSealerOutlivesTheDatabase(t *testing.T) {
	server := pgtest.Durable(t)
	r := &rig{t: t, ctx: t.Context(), dir: t.TempDir(), url: server.ConnString("postgres")}
	if err := migrate(r.ctx, r.url); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(r.ctx, r.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	r.pool = db.Engine()
	r.reader = NewReader(r.pool, testLogID, testOrigin)
	if err := EnsureLog(r.ctx, r.pool, testLogID, testOrigin, r.key()); err != nil {
		t.Fatal(err)
	}
	heads := NewHeads(r.reader)
	sealer := r.sealer("mark", func(c *Config) { c.Heads, c.MaxLeaves, c.MinInterval = heads, 1, 20*time.Millisecond })
	stop := r.run(sealer)
	var size int64
	for range 3 {
		r.record(70, 0)
		size += 70
		sealer.Wake()
		waitFor(t, heads, size, 10*time.Second)
		r.record(30, 0) // perhaps being sealed at the moment of the crash
		size += 30
		sealer.Wake()
		if err := server.Restart(r.ctx, true); err != nil {
			t.Fatal(err)
		}
		awaitDatabase(t, r.pool)
	}
	waitFor(t, heads, size, 15*time.Second)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.wantHead(size)
	checkChain(t, r)
}

func awaitDatabase(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		pool.Reset() // drops the connections that the crash broke
		err := pool.Ping(t.Context())
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the database did not come back: %v", err)
		}
	}
}
