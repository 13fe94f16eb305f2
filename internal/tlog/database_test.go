package tlog

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	testOrigin = "log.example.com/l/1"
	testLogID  = 1
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrate(ctx context.Context, url string) error {
	_, err := store.Migrate(ctx, url)
	return err
}

// rig is a log in a database of its own.
type rig struct {
	t      testing.TB
	ctx    context.Context
	url    string
	pool   *pgxpool.Pool
	dir    string // of the key and the high-water file
	reader *Reader
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, ctx: context.Background(), dir: t.TempDir(), url: pgtest.New(t, migrate)}
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
	return r
}

func (r *rig) key() *Key {
	r.t.Helper()
	key, err := OpenKeyFile(filepath.Join(r.dir, "log.key"))
	if err != nil {
		r.t.Fatal(err)
	}
	return key
}

func (r *rig) highWater(name string) *HighWater {
	r.t.Helper()
	mark, err := OpenHighWater(filepath.Join(r.dir, name), testOrigin)
	if err != nil {
		r.t.Fatal(err)
	}
	return mark
}

// sealer makes the sealer of a process: a new node id, and the high-water file of that name.
func (r *rig) sealer(highWater string, change func(*Config)) *Sealer {
	r.t.Helper()
	cfg := Config{LogID: testLogID, Origin: testOrigin, Node: uuid.Must(uuid.NewV7()), DB: r.pool, Keys: NewKeys(r.key()),
		HighWater: r.highWater(highWater), Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	sealer, err := NewSealer(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	return sealer
}

// testLeaf makes the leaf at an index: always the same bytes, as large as a usual attempt's.
func testLeaf(index int64) []byte {
	id := binary.BigEndian.AppendUint64(make([]byte, 8), uint64(index))
	hash := sha256.Sum256(id)
	at := timestamppb.New(time.Unix(1_800_000_000+index, 0))
	leaf, err := proto.MarshalOptions{Deterministic: true}.Marshal(&leafv1.Leaf{
		Nonce: hash[:16],
		Kind: &leafv1.Leaf_Attempt{Attempt: &leafv1.Attempt{
			AttemptId: id, DeliveryId: id, EventId: id, TenantId: id, EndpointId: id, DestinationId: id, NodeId: id,
			Number: 1, PayloadSha256: hash[:], PayloadBytes: 1024, Url: "https://hooks.example.com/orders", ReceivedAt: at, StartedAt: at,
			Duration: durationpb.New(12 * time.Millisecond), Outcome: leafv1.Outcome_OUTCOME_SUCCEEDED, StatusCode: 200,
			RequestHeadersSha256: hash[:], ResponseSha256: hash[:], ResponseBytes: 2, IntakeVerification: "github",
		}},
	})
	if err != nil {
		panic(err)
	}
	return leaf
}

// record writes n leaves, as old as age, and gives them the next indexes in the same transaction.
func (r *rig) record(n int64, age time.Duration) {
	r.t.Helper()
	err := pgx.BeginFunc(r.ctx, r.pool, func(tx pgx.Tx) error {
		var end int64
		if err := tx.QueryRow(r.ctx, "update logs set next_index = next_index + $1 where log_id = $2 returning next_index", n, testLogID).Scan(&end); err != nil {
			return err
		}
		leaves := make([][]byte, n)
		for i := range leaves {
			leaves[i] = testLeaf(end - n + int64(i))
		}
		_, err := tx.Exec(r.ctx, `insert into attempts (log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id,
				outcome, leaf, diagnosis, response_excerpt)
			select $1, $2::bigint + place - 1, now() - make_interval(secs => $3), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(),
				gen_random_uuid(), 1, leaf, '', ''
			from unnest($4::bytea[]) with ordinality as u(leaf, place)`, testLogID, end-n, age.Seconds(), leaves)
		return err
	})
	if err != nil {
		r.t.Fatalf("record %d leaves: %v", n, err)
	}
}

// tamper runs a statement as somebody who owns the database, past triggers and row-level security.
func (r *rig) tamper(statement string, args ...any) {
	r.t.Helper()
	conn, err := pgx.Connect(r.ctx, r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close(r.ctx)
	if _, err := conn.Exec(r.ctx, "set session_replication_role = replica"); err != nil {
		r.t.Fatal(err)
	}
	tag, err := conn.Exec(r.ctx, statement, args...)
	if err != nil || tag.RowsAffected() == 0 {
		r.t.Fatalf("%s: %v rows, %v", statement, tag.RowsAffected(), err)
	}
}

func (r *rig) flush(s *Sealer) {
	r.t.Helper()
	if err := s.Flush(r.ctx); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) wantHead(size int64) Head {
	r.t.Helper()
	head, err := r.reader.Head(r.ctx)
	if err != nil || head.Size != size {
		r.t.Fatalf("latest head: got tree size %d, %v, want %d", head.Size, err, size)
	}
	var hashes []merkle.Hash
	for i := range size {
		hashes = append(hashes, merkle.LeafHash(testLeaf(i)))
	}
	if tree, _ := new(merkle.Tree).Grow(hashes); tree.Root() != head.Root {
		r.t.Fatalf("root of %d leaves: got %s, want %s", size, head.Root, tree.Root())
	}
	return head
}

// run runs a sealer until the test ends it with the function returned, which gives what Run returned.
func (r *rig) run(s *Sealer) (stop func() error) {
	ctx, cancel := context.WithCancel(r.ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var result error
	stopped := false
	stop = func() error {
		if !stopped {
			stopped = true
			cancel()
			select {
			case result = <-done:
			case <-time.After(20 * time.Second):
				result = fmt.Errorf("sealer did not stop")
			}
		}
		return result
	}
	r.t.Cleanup(func() { stop() })
	return stop
}

// pack makes the proof package of a leaf.
func (r *rig) pack(index int64, leaf []byte, head Head) ([]byte, error) {
	packager, err := r.reader.Packager(r.ctx, head)
	if err != nil {
		return nil, err
	}
	return packager.Package(r.ctx, index, leaf)
}
