package witness

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/types/known/timestamppb"

	"filippo.io/torchwood"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
	"github.com/kapsel-dev/kapsel/store"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const testLogID = 1

// cluster is a database with a log, one witness, and the key that all sealers share.
type cluster struct {
	t       *testing.T
	url     string
	pool    *pgxpool.Pool
	reader  *tlog.Reader
	key     *tlog.Key
	witness *served
	dir     string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), url: pgtest.New(t, func(ctx context.Context, url string) error {
		_, err := store.Migrate(ctx, url)
		return err
	})}
	db, err := store.Open(t.Context(), c.url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	c.pool = db.Engine()
	private := newKey(t)
	if c.key, err = tlog.NewKey(private); err != nil {
		t.Fatal(err)
	}
	if err := tlog.EnsureLog(t.Context(), c.pool, testLogID, logOrigin, c.key); err != nil {
		t.Fatal(err)
	}
	c.reader = tlog.NewReader(c.pool, testLogID, logOrigin)
	text, err := checkpoint.VerifierKey(logOrigin, private.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	c.witness = serveWitness(t, "witness.example.com", text)
	return c
}

// sealer is that of a node, with a collector and a high-water mark of its own.
func (c *cluster) sealer(name string, hold bool) *tlog.Sealer {
	c.t.Helper()
	mark, err := tlog.OpenHighWater(filepath.Join(c.dir, name), logOrigin)
	if err != nil {
		c.t.Fatal(err)
	}
	collector := NewCollector(policyOf(c.t, 1, c.witness), hold, tlog.StoredProof(c.pool, testLogID), tlog.StoreCosignatures(c.pool, testLogID), quiet)
	ctx, cancel := context.WithCancel(c.t.Context())
	done := make(chan struct{})
	go func() { defer close(done); collector.Run(ctx) }()
	c.t.Cleanup(func() { cancel(); <-done })
	sealer, err := tlog.NewSealer(tlog.Config{LogID: testLogID, Origin: logOrigin, Node: uuid.Must(uuid.NewV7()), DB: c.pool,
		Keys: tlog.NewKeys(c.key), HighWater: mark, Witnesses: collector, WitnessTimeout: 1500 * time.Millisecond, Logger: quiet})
	if err != nil {
		c.t.Fatal(err)
	}
	return sealer
}

func (c *cluster) exec(statement string, args ...any) {
	c.t.Helper()
	conn, err := pgx.Connect(c.t.Context(), c.url)
	if err != nil {
		c.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(c.t.Context(), statement, args...); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) record(n int) {
	c.t.Helper()
	c.exec(fmt.Sprintf(`with place as (update logs set next_index = next_index + %d returning next_index - %d as first)
		insert into attempts select 1, first + i, now(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1,
		('leaf ' || first + i)::bytea, '', '' from place, generate_series(0, %d - 1) i`, n, n, n))
}

// expire ends the lease of whoever holds it, as if it had been silent.
func (c *cluster) expire() {
	c.t.Helper()
	c.exec("update log_sealers set lease_expires_at = now() - interval '1 second'")
}

func (c *cluster) inject(point fault.Name) {
	c.t.Helper()
	schedule, err := fault.Parse("seed=1;" + string(point) + "=error:1")
	if err != nil {
		c.t.Fatal(err)
	}
	fault.Enable(schedule)
	c.t.Cleanup(func() { fault.Enable(nil) })
}

// check makes sure that the latest head has so many leaves, is cosigned, and that all published heads are of one tree.
func (c *cluster) check(size int64) tlog.Head {
	c.t.Helper()
	ctx := c.t.Context()
	heads, err := c.reader.List(ctx, 1<<62, 100)
	if err != nil || len(heads) == 0 || heads[0].Size != size {
		c.t.Fatalf("heads %v, %v, want one of %d leaves", heads, err, size)
	}
	for i := 1; i < len(heads); i++ {
		proof, err := c.reader.ConsistencyProof(ctx, heads[i].Size, heads[i-1].Size)
		if err == nil {
			err = merkle.VerifyConsistency(heads[i].Size, heads[i-1].Size, proof, heads[i].Root, heads[i-1].Root)
		}
		if err != nil {
			c.t.Fatalf("heads %d and %d: %v", heads[i].Size, heads[i-1].Size, err)
		}
	}
	signed, err := c.reader.SignedNote(ctx, heads[0])
	if err != nil {
		c.t.Fatal(err)
	}
	verifier, err := torchwood.NewCosignatureVerifier(c.witness.key)
	if err != nil {
		c.t.Fatal(err)
	}
	if opened, err := note.Open([]byte(signed), note.VerifierList(verifier)); err != nil || len(opened.Sigs) != 1 {
		c.t.Fatalf("the head of %d leaves is not cosigned: %v\n%s", size, err, signed)
	}
	return heads[0]
}

func (c *cluster) flush(s *tlog.Sealer) {
	c.t.Helper()
	if err := s.Flush(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
}

// A node dies at each point between its signature and the publication. Another one takes over, then the first comes back.
func TestCrashBetweenSignatureAndPublicationMakesNoFork(t *testing.T) {
	for _, point := range []fault.Name{fault.SealerBeforeSign, fault.SealerAfterHighWater, fault.SealerAfterCosign} {
		for _, same := range []bool{false, true} { // whether the next leader has more leaves to seal
			t.Run(fmt.Sprintf("%s/%v", point, same), func(t *testing.T) {
				c := newCluster(t)
				one, two := c.sealer("one", true), c.sealer("two", true)
				c.record(10)
				c.flush(one)
				c.check(10)
				c.record(20)
				c.inject(point)
				if err := one.Flush(t.Context()); !errors.Is(err, fault.ErrInjected) {
					t.Fatalf("got %v", err)
				}
				c.check(10) // nobody has seen it
				fault.Enable(nil)
				size := int64(30)
				if !same {
					c.record(7)
					size = 37
				}
				c.expire()
				c.flush(two)
				c.check(size)
				c.record(5)
				c.expire()
				c.flush(one)
				c.check(size + 5)
			})
		}
	}
}

// Two nodes have each signed a head that did not come out, and the larger one was cosigned. The first must not wait for a
// cosignature of the smaller one for ever.
func TestCosignedHeadOfADeadNodeIsGoneBeyond(t *testing.T) {
	c := newCluster(t)
	one, two := c.sealer("one", true), c.sealer("two", true)
	c.record(10)
	c.flush(one)
	c.record(10)
	c.inject(fault.SealerAfterHighWater)
	if err := one.Flush(t.Context()); !errors.Is(err, fault.ErrInjected) {
		t.Fatalf("got %v", err)
	}
	c.record(10)
	c.expire()
	c.inject(fault.SealerAfterCosign)
	if err := two.Flush(t.Context()); !errors.Is(err, fault.ErrInjected) {
		t.Fatalf("got %v", err)
	}
	fault.Enable(nil)
	c.expire()
	err := one.Flush(t.Context())
	var ahead *AheadError
	if !errors.Is(err, tlog.ErrNoQuorum) || !errors.As(err, &ahead) || ahead.Size != 30 {
		t.Fatalf("the smaller tree: got %v", err)
	}
	c.flush(one)
	c.check(30)
}

// While a head waits for its quorum, its sealer keeps the lease, and gives way if it was lost all the same.
func TestHeldHeadBlocksOnlyPublication(t *testing.T) {
	c := newCluster(t)
	one, two := c.sealer("one", true), c.sealer("two", true)
	c.record(10)
	c.flush(one)
	c.record(10)
	c.witness.set(unavailable)
	if err := one.Flush(t.Context()); !errors.Is(err, tlog.ErrNoQuorum) {
		t.Fatalf("got %v", err)
	}
	c.check(10)
	if err := two.Flush(t.Context()); !errors.Is(err, tlog.ErrNotLeader) {
		t.Fatalf("the other node: got %v, want ErrNotLeader", err)
	}
	held := make(chan error, 1)
	go func() { held <- one.Flush(t.Context()) }()
	time.Sleep(300 * time.Millisecond)
	c.record(5) // the ledger goes on
	c.expire()
	c.witness.set(nil)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err := two.Flush(t.Context()); err == nil {
			break
		} else if !errors.Is(err, tlog.ErrNotLeader) && !errors.Is(err, tlog.ErrNoQuorum) || time.Now().After(deadline) {
			t.Fatal(err)
		}
		c.expire()
	}
	if err := <-held; err != nil && !errors.Is(err, tlog.ErrNotLeader) && !errors.Is(err, tlog.ErrNoQuorum) {
		t.Errorf("the held one: %v", err)
	}
	c.check(25)
}

// awaitCosigned waits until the latest head, of so many leaves, has more than the log's own lines.
func (c *cluster) awaitCosigned(size int64) {
	c.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		head, err := c.reader.Head(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		if signed, err := c.reader.SignedNote(c.t.Context(), head); err == nil && signed != head.Note {
			break
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("the head of %d leaves is not cosigned", head.Size)
		}
	}
	c.check(size)
}

// A node publishes a head and ends before its witnesses have answered, and then nothing happens for long. Whoever leads next has the
// head cosigned.
func TestHeadOfANodeThatEndedIsCosigned(t *testing.T) {
	c := newCluster(t)
	mark, err := tlog.OpenHighWater(filepath.Join(c.dir, "ended"), logOrigin)
	if err != nil {
		t.Fatal(err)
	}
	ended, err := tlog.NewSealer(tlog.Config{LogID: testLogID, Origin: logOrigin, Node: uuid.Must(uuid.NewV7()), DB: c.pool,
		Keys: tlog.NewKeys(c.key), HighWater: mark, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	c.record(10)
	c.flush(ended)
	c.expire()
	next := c.sealer("next", false)
	c.flush(next)
	c.awaitCosigned(10)
	c.record(3)
	c.flush(next)
	c.awaitCosigned(13)
}

// Without hold the head is out at once and its cosignature follows; a package carries both, with the witness's key.
func TestCosignaturesTravelInPackages(t *testing.T) {
	c := newCluster(t)
	one := c.sealer("one", false)
	some, payload := id.New(), sha256.Sum256(nil)
	leaf, err := ledger.EncodeDeadLetter(&leafv1.DeadLetter{EventId: some[:], TenantId: some[:], EndpointId: some[:], NodeId: some[:],
		Reason: leafv1.DeadLetterReason_DEAD_LETTER_REASON_MALFORMED_PAYLOAD, PayloadSha256: payload[:], DiagnosisSha256: payload[:],
		ReceivedAt: timestamppb.Now(), DeadAt: timestamppb.Now()})
	if err != nil {
		t.Fatal(err)
	}
	c.exec("insert into attempts values (1, 0, now(), $1, $1, $1, $1, 0, $2, '', '')", some, leaf)
	c.exec("update logs set next_index = 1")
	c.witness.set(unavailable)
	c.flush(one)
	head, err := c.reader.Head(t.Context())
	if err != nil || head.Size != 1 {
		t.Fatalf("%d, %v", head.Size, err)
	}
	c.witness.set(nil)
	signed := ""
	for deadline := time.Now().Add(10 * time.Second); signed == "" || signed == head.Note; time.Sleep(20 * time.Millisecond) {
		if signed, err = c.reader.SignedNote(t.Context(), head); err != nil || time.Now().After(deadline) {
			t.Fatalf("no cosignature came: %v", err)
		}
	}
	c.check(1)
	packager, err := c.reader.Packager(t.Context(), head)
	if err != nil {
		t.Fatal(err)
	}
	data, err := packager.Package(t.Context(), 0, leaf)
	if err != nil {
		t.Fatal(err)
	}
	key, err := c.key.VerifierKey(logOrigin)
	if err != nil {
		t.Fatal(err)
	}
	report, err := verify.Verify(data, verify.Options{TrustedKeys: []string{key, c.witness.key}})
	if err != nil || !report.Full || len(report.NotChecked) > 0 || report.Package.Checkpoint != signed ||
		!slices.Equal(report.Package.PublicKeys, []string{key, c.witness.key}) {
		t.Errorf("%v, %+v", err, report)
	}
}
