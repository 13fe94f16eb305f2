package tlog

import (
	"context"
	"crypto"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

func waitFor(t *testing.T, heads *Heads, size int64, within time.Duration) Head {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	head, err := heads.Wait(ctx, size)
	if err != nil {
		latest, known := heads.Latest()
		t.Fatalf("no head of %d leaves within %v: %v (latest %d, %v)", size, within, err, latest.Size, known)
	}
	return head
}

func TestNewLogHasAnEmptyHead(t *testing.T) {
	r := newRig(t)
	if _, err := r.reader.Head(r.ctx); !errors.Is(err, ErrNotFound) {
		t.Fatalf("before a sealer ran: got %v, want ErrNotFound", err)
	}
	r.flush(r.sealer("mark", nil))
	head := r.wantHead(0)
	c, at, err := checkpoint.Open(head.Note, testOrigin, r.key().Public())
	if err != nil || c != head.checkpoint(testOrigin) || !at.Equal(head.SignedAt) {
		t.Errorf("note of the empty head: %+v at %v, %v", c, at, err)
	}
}

func TestSealsWhenEnoughLeavesWait(t *testing.T) {
	r := newRig(t)
	heads := NewHeads(r.reader)
	stats := make(chan SealStats, 10)
	sealer := r.sealer("mark", func(c *Config) {
		c.Heads, c.MaxAge, c.MinInterval = heads, time.Hour, time.Millisecond
		c.OnSeal = func(s SealStats) { stats <- s }
	})
	stop := r.run(sealer)
	waitFor(t, heads, 0, 5*time.Second)
	r.record(99, 0)
	sealer.Wake()
	time.Sleep(3 * pokeInterval)
	r.wantHead(0)
	r.record(1, 0)
	sealer.Wake()
	waitFor(t, heads, 100, lookInterval-pokeInterval) // before the next look without a poke
	r.wantHead(100)
	if s := <-stats; s.Leaves != 100 || s.Head.Size != 100 || s.Took <= 0 || s.Waited <= 0 {
		t.Errorf("stats of the seal: %+v", s)
	}
	r.record(7, 0)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	r.wantHead(107) // the end seals what waits
	var free bool
	if err := r.pool.QueryRow(r.ctx, "select lease_owner is null from log_sealers").Scan(&free); err != nil || !free {
		t.Errorf("lease given back: %v, %v", free, err)
	}
}

func TestSealsWhenTheOldestLeafIsOldEnough(t *testing.T) {
	r := newRig(t)
	heads := NewHeads(r.reader)
	sealer := r.sealer("mark", func(c *Config) { c.Heads, c.MaxAge = heads, 600*time.Millisecond })
	r.run(sealer)
	waitFor(t, heads, 0, 5*time.Second)
	r.record(1, 0)
	began := time.Now()
	sealer.Wake()
	waitFor(t, heads, 1, 5*time.Second)
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("sealed after %v, before the leaf was 600 ms old", took)
	}
}

func TestSealsAtMostOncePerInterval(t *testing.T) {
	r := newRig(t)
	heads := NewHeads(r.reader)
	sealer := r.sealer("mark", func(c *Config) { c.Heads, c.MaxLeaves, c.MinInterval = heads, 1, 700*time.Millisecond })
	began := time.Now()
	r.run(sealer)
	waitFor(t, heads, 0, 5*time.Second)
	for range 20 {
		r.record(1, 0)
		sealer.Wake()
		time.Sleep(100 * time.Millisecond)
	}
	waitFor(t, heads, 20, 3*time.Second)
	var seals int
	if err := r.pool.QueryRow(r.ctx, "select count(*) from tree_heads where tree_size > 0").Scan(&seals); err != nil {
		t.Fatal(err)
	}
	if most := 1 + int(time.Since(began)/(700*time.Millisecond)); seals < 2 || seals > most {
		t.Errorf("%d seals: want 2 to %d", seals, most)
	}
}

// Between two seals the leaves are read as they come; a seal may still end before, at, or after the last one that was read.
func TestLeavesAreReadAheadOfTheirSeal(t *testing.T) {
	r := newRig(t)
	sealer := r.sealer("mark", func(c *Config) { c.MaxLeaves, c.MinInterval = 1, time.Hour })
	look := func() {
		t.Helper()
		if _, err := sealer.look(r.ctx); err != nil {
			t.Fatal(err)
		}
	}
	r.record(5, 0)
	look()
	r.wantHead(5)
	r.record(300, 0)
	look()
	r.wantHead(5)
	if got := len(sealer.ahead.hashes); got != 300 {
		t.Errorf("%d leaves were read ahead, want 300", got)
	}
	for _, end := range []int64{100, 300, 305} { // sizes of the tree
		if _, err := sealer.seal(r.ctx, end); err != nil {
			t.Fatal(err)
		}
		r.wantHead(end)
	}
	r.record(7, 0)
	look()
	r.record(3, 0)
	r.flush(sealer)
	r.wantHead(315)
	if got := len(sealer.ahead.hashes); got != 0 {
		t.Errorf("%d hashes of sealed leaves are kept", got)
	}
	checkChain(t, r)
}

// Two sealers under load: one chain of heads comes out, each consistent with the one before, and whoever is left goes on.
func TestTwoSealersMakeOneChain(t *testing.T) {
	r := newRig(t)
	heads := NewHeads(r.reader)
	eager := func(c *Config) { c.MaxLeaves, c.MinInterval, c.Heads = 1, 10*time.Millisecond, heads }
	one, two := r.sealer("mark-one", eager), r.sealer("mark-two", eager)
	stopOne := r.run(one)
	waitFor(t, heads, 0, 5*time.Second)
	stopTwo := r.run(two)
	for i := range 40 {
		r.record(13, 0)
		one.Wake()
		two.Wake()
		time.Sleep(20 * time.Millisecond)
		if i == 20 {
			if err := stopOne(); err != nil {
				t.Fatal(err)
			}
		}
	}
	waitFor(t, heads, 520, 10*time.Second)
	if err := stopTwo(); err != nil {
		t.Fatal(err)
	}
	r.wantHead(520)
	checkChain(t, r)
}

// checkChain proves every published head consistent with the next.
func checkChain(t *testing.T, r *rig) {
	t.Helper()
	rows, err := r.reader.tiles.queries.ListTreeHeads(r.ctx, r.pool, testLogID, 1<<62, 10_000)
	if err != nil {
		t.Fatal(err)
	}
	for i := 1; i < len(rows); i++ {
		newer, older := rows[i-1], rows[i]
		proof, err := r.reader.ConsistencyProof(r.ctx, older.TreeSize, newer.TreeSize)
		if err != nil {
			t.Fatal(err)
		}
		if err := merkle.VerifyConsistency(older.TreeSize, newer.TreeSize, proof, merkle.Hash(older.RootHash), merkle.Hash(newer.RootHash)); err != nil {
			t.Errorf("heads %d and %d: %v", older.TreeSize, newer.TreeSize, err)
		}
	}
	if len(rows) < 3 {
		t.Errorf("only %d heads", len(rows))
	}
}

func TestSealerWithoutTheLeaseCannotPublish(t *testing.T) {
	r := newRig(t)
	old, next := r.sealer("mark-old", nil), r.sealer("mark-next", nil)
	r.record(10, 0)
	r.flush(old)
	if err := next.Flush(r.ctx); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("a second sealer: got %v, want ErrNotLeader", err)
	}
	// The old leader is suspended: its lease runs out, another one leads and seals, then it goes on where it was.
	r.tamper("update log_sealers set lease_expires_at = now() - interval '1 second'")
	r.record(10, 0)
	r.flush(next)
	r.record(10, 0)
	if err := old.Flush(r.ctx); !errors.Is(err, ErrNotLeader) {
		t.Fatalf("the old leader: got %v, want ErrNotLeader", err)
	}
	r.wantHead(20)
	// It has signed 30 leaves, which nobody saw. When it leads again, it publishes just that tree and goes on.
	r.flush(next)
	if err := next.finish(r.ctx); err != nil {
		t.Fatal(err)
	}
	r.record(5, 0)
	r.flush(old)
	r.wantHead(35)
	checkChain(t, r)
}

func TestRestartGoesOn(t *testing.T) {
	r := newRig(t)
	for size, n := range []int64{1, 254, 1, 1, 300, 512} {
		sealer := r.sealer("mark", nil)
		r.record(n, 0)
		r.flush(sealer)
		if err := sealer.finish(r.ctx); err != nil {
			t.Fatalf("restart %d: %v", size, err)
		}
	}
	r.wantHead(1069)
	checkChain(t, r)
}

// A crash between the signature and the publication: the tree that was signed must be published, and no smaller one.
func TestCrashBeforePublicationRepeatsTheSameTree(t *testing.T) {
	r := newRig(t)
	sealer := r.sealer("mark", nil)
	r.record(10, 0)
	r.flush(sealer)
	r.record(7, 0)
	mark := sealer.HighWater
	if err := sealer.hashLeaves(r.ctx, 17); err != nil {
		t.Fatal(err)
	}
	signed, _ := sealer.tree.Grow(sealer.ahead.hashes)
	if err := mark.advance(checkpoint.Checkpoint{Origin: testOrigin, Size: 17, Root: signed.Root()}); err != nil {
		t.Fatal(err)
	}
	if err := sealer.release(r.ctx); err != nil {
		t.Fatal(err)
	}
	r.record(3, 0)
	r.flush(r.sealer("mark", nil))
	r.wantHead(20)
	if head, err := r.reader.HeadAt(r.ctx, 17); err != nil || head.Root != signed.Root() {
		t.Errorf("head of the tree that was signed before the crash: %+v, %v", head, err)
	}
}

// Old leaves that wait are sealed, however long nobody sealed, and over the day's bound of partitions.
func TestBacklogOfOldLeavesIsSealed(t *testing.T) {
	r := newRig(t)
	r.record(300, 90*24*time.Hour)
	r.flush(r.sealer("mark", nil))
	r.wantHead(300)
}

func TestLeafThatWaitsForDaysIsSealedAfterRestart(t *testing.T) {
	r := newRig(t)
	sealer := r.sealer("mark", nil)
	r.record(10, 72*time.Hour)
	r.flush(sealer)
	r.record(10, 71*time.Hour)
	if err := sealer.release(r.ctx); err != nil {
		t.Fatal(err)
	}
	r.flush(r.sealer("mark", nil))
	r.wantHead(20)
}

// What is wrong with the database is refused, by a sealer that was running and by one that starts.
func TestContradictionsAreRefused(t *testing.T) {
	const damage = "set hashes = overlay(hashes placing '\\x00' from 33 for 1) where level = 0 and tile_index = 1"
	tests := map[string]struct {
		tamper []string
		says   string
	}{
		"rolled back leaves":      {[]string{"delete from attempts where leaf_index >= 250", "update logs set next_index = 250"}, "tree of 300 leaves was published"},
		"leaf changed":            {[]string{"update attempts set leaf = '\\x00' where leaf_index = 299"}, "leaf 299"},
		"tile changed":            {[]string{"update tiles " + damage}, "root"},
		"tile missing":            {[]string{"delete from tiles where level = 1"}, "tile/1/000"},
		"head missing":            {[]string{"delete from tree_heads where tree_size = 300"}, "head of tree size 300 is missing"},
		"head of nobody's":        {[]string{"update tree_heads set note = replace(note, '300', '301')"}, "not one of this log"},
		"another root":            {[]string{"update log_sealers set root_hash = sha256('x')"}, "root"},
		"published size set back": {[]string{"update log_sealers set tree_size = 100, root_hash = (select root_hash from tree_heads where tree_size = 100)", "delete from tree_heads where tree_size = 300", "update logs set next_index = 299"}, "tree of 300 leaves was signed"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			first := r.sealer("mark", nil)
			r.record(100, 0)
			r.flush(first)
			r.record(200, 0)
			r.flush(first)
			if err := first.release(r.ctx); err != nil {
				t.Fatal(err)
			}
			for _, statement := range test.tamper {
				r.tamper(statement)
			}
			sealer := r.sealer("mark", nil)
			err := sealer.Run(r.ctx)
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want a refusal that says %q", err, test.says)
			}
			if refusal := sealer.Refusal(); refusal == nil || !strings.Contains(refusal.Reason.Error(), test.says) || refusal.Since.IsZero() {
				t.Errorf("it tells %+v of its refusal", refusal)
			}
			if head, err := r.reader.Head(r.ctx); err == nil && head.Size > 300 {
				t.Errorf("a head of %d leaves was published", head.Size)
			}
		})
	}
}

func TestRunningSealerRefusesHolesAndChangedTiles(t *testing.T) {
	tests := map[string]struct{ statement, says string }{
		"hole":         {"delete from attempts where leaf_index = 350", "leaf 350 is missing"},
		"tile changed": {"update tiles set hashes = sha256('x') where level = 1", "root"},
		"tile is longer than the log": {"update tiles set hashes = (select string_agg(sha256(n::text::bytea), '') from generate_series(1, 256) n) where level = 0 and tile_index = 1",
			"root"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			sealer := r.sealer("mark", nil)
			r.record(300, 0)
			r.flush(sealer)
			r.record(100, 0)
			r.tamper(test.statement)
			if err := sealer.Flush(r.ctx); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want a refusal that says %q", err, test.says)
			}
			if head, err := r.reader.Head(r.ctx); err != nil || head.Size != 300 {
				t.Errorf("latest head: %d, %v, want 300", head.Size, err)
			}
		})
	}
}

// The database was restored from a backup, with all its rows in harmony; only the high-water file knows more.
func TestRestoredBackupIsRefused(t *testing.T) {
	r := newRig(t)
	sealer := r.sealer("mark", nil)
	r.record(100, 0)
	r.flush(sealer)
	backup, err := os.ReadFile(filepath.Join(r.dir, "mark"))
	if err != nil {
		t.Fatal(err)
	}
	r.record(100, 0)
	r.flush(sealer)
	if err := sealer.release(r.ctx); err != nil {
		t.Fatal(err)
	}
	r.tamper("delete from attempts where leaf_index >= 100")
	r.tamper("delete from tree_heads where tree_size = 200")
	r.tamper("update tiles set hashes = substring(hashes for 3200)")
	r.tamper("update log_sealers set tree_size = 100, root_hash = (select root_hash from tree_heads where tree_size = 100)")
	r.tamper("update logs set next_index = 100")

	refused := func(says string) {
		t.Helper()
		err := r.sealer("mark", nil).Run(r.ctx)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "kapsel keys restart-log") {
			t.Fatalf("got %v, want a refusal that says %q and what to do", err, says)
		}
	}
	refused("a tree of 200 leaves was signed, but the database holds only 100")
	// Other leaves than those that were signed take their places: the same size is reached with another root.
	r.tamper(`insert into attempts select log_id, leaf_index + 100, recorded_at, tenant_id, gen_random_uuid(), delivery_id, event_id,
		outcome, leaf, diagnosis, response_excerpt from attempts`)
	r.tamper("update logs set next_index = 200")
	if err := r.sealer("mark", nil).Flush(r.ctx); !errors.Is(err, ErrRefused) {
		t.Fatalf("other leaves under a signed size: got %v, want a refusal", err)
	}
	if head, err := r.reader.Head(r.ctx); err != nil || head.Size != 100 {
		t.Fatalf("latest head: %d, %v, want 100", head.Size, err)
	}
	// With the mark of the backup's time the same database is sealed: it was the mark alone that stood in the way.
	if err := os.WriteFile(filepath.Join(r.dir, "mark"), backup, 0o600); err != nil {
		t.Fatal(err)
	}
	r.tamper("update log_sealers set lease_owner = null")
	r.flush(r.sealer("mark", nil))
	if head, err := r.reader.Head(r.ctx); err != nil || head.Size != 200 {
		t.Fatalf("latest head: %d, %v, want 200", head.Size, err)
	}
}

func TestOriginOfALogNeverChanges(t *testing.T) {
	r := newRig(t)
	if err := EnsureLog(r.ctx, r.pool, testLogID, testOrigin, r.key()); err != nil {
		t.Errorf("again: %v", err)
	}
	if err := EnsureLog(r.ctx, r.pool, testLogID, "other.example/l/1", r.key()); err == nil {
		t.Error("another origin: want an error")
	}
	if err := EnsureLog(r.ctx, r.pool, 2, testOrigin, r.key()); err == nil {
		t.Error("the same origin for another log: want an error")
	}
	if _, err := NewSealer(Config{Origin: "a b", MaxLeaves: -1}); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("a wrong configuration: got %v, want all three errors", err)
	}
}

func BenchmarkSeal10000Leaves(b *testing.B) {
	r := newRig(b)
	sealer := r.sealer("mark", nil)
	r.flush(sealer)
	for b.Loop() {
		b.StopTimer()
		r.record(10_000, 0)
		b.StartTimer()
		r.flush(sealer)
	}
}

// The leader is suspended between its signature and the publication, for longer than its lease. Another node leads, seals
// more, and publishes. The first one wakes up: its head never appears, and it can lead again later, as its mark fits.
func TestSealerPausedBeforePublicationWakesTooLate(t *testing.T) {
	r := newRig(t)
	paused, next := r.sealer("mark-paused", nil), r.sealer("mark-next", nil)
	r.record(10, 0)
	r.flush(paused)
	r.record(7, 0)
	schedule, err := fault.Parse("seed=1;sealer.after_highwater=delay:1:2s")
	if err != nil {
		t.Fatal(err)
	}
	fault.Enable(schedule)
	t.Cleanup(func() { fault.Enable(nil) })
	woken := make(chan error)
	go func() { woken <- paused.Flush(r.ctx) }()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if text, err := os.ReadFile(filepath.Join(r.dir, "mark-paused")); err == nil && strings.Contains(string(text), `"size":17`) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the first sealer did not sign")
		}
	}
	r.tamper("update log_sealers set lease_expires_at = now() - interval '1 second'")
	r.record(8, 0)
	r.flush(next) // with the same delay: were it switched off here, the first one might not have come to it
	fault.Enable(nil)
	r.wantHead(25)
	if err := <-woken; !errors.Is(err, ErrNotLeader) {
		t.Errorf("the sealer that woke up: got %v, want ErrNotLeader", err)
	}
	r.wantHead(25)
	if _, err := r.reader.HeadAt(r.ctx, 17); !errors.Is(err, ErrNotFound) {
		t.Errorf("the head that nobody was to see: %v", err)
	}
	if err := next.finish(r.ctx); err != nil {
		t.Fatal(err)
	}
	r.record(1, 0)
	r.flush(paused)
	r.wantHead(26)
	checkChain(t, r)
}

// slowSigner takes longer than the lease lasts.
type slowSigner struct {
	crypto.Signer
	slow func()
}

func (s slowSigner) Sign(rand io.Reader, message []byte, options crypto.SignerOpts) ([]byte, error) {
	s.slow()
	return s.Signer.Sign(rand, message, options)
}

// A key service that takes seconds for each signature holds sealing up, and does not end it.
func TestSlowSignatureDoesNotLoseTheLease(t *testing.T) {
	r := newRig(t)
	var sealer *Sealer
	key, err := NewKey(slowSigner{r.key().Signer(), func() {
		r.tamper("update log_sealers set lease_expires_at = now() - interval '1 second'")
		sealer.renewed = time.Now().Add(-leaseTime)
	}})
	if err != nil {
		t.Fatal(err)
	}
	sealer = r.sealer("mark", func(c *Config) { c.Keys = NewKeys(key) })
	r.record(10, 0)
	r.flush(sealer)
	r.wantHead(10)
}

// Two sealers that each believe to lead publish at the same moment, many times: one chain comes out.
func TestSealersThatBothBelieveToLeadMakeOneChain(t *testing.T) {
	r := newRig(t)
	one, two := r.sealer("mark-one", nil), r.sealer("mark-two", nil)
	for range 15 {
		r.record(11, 0)
		results := make(chan error, 2)
		for _, s := range []*Sealer{one, two} {
			go func() { results <- s.Flush(r.ctx) }()
		}
		for range 2 {
			if err := <-results; err != nil && !errors.Is(err, ErrNotLeader) {
				t.Fatal(err)
			}
		}
		r.tamper("update log_sealers set lease_owner = null") // and each may take it next time
	}
	r.flush(one)
	r.wantHead(15 * 11)
	checkChain(t, r)
}
