package chaos

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
)

// readPatience is how long reading the ledger of a long run may take.
const readPatience = 5 * time.Minute

// Ledger is what a database says happened, read in one snapshot.
type Ledger struct {
	// Leaves in the order of their indexes, and the attempts in them by event id. ReadAttempts keeps only these.
	Leaves   [][]byte
	Attempts map[string][]Attempt
	// Events is the number of events.
	Events int
	// Notes are all published heads, from the smallest.
	Notes []string

	nextIndex int64
	indexes   []int64
}

// Attempt is what a leaf says of one try.
type Attempt struct {
	Number  uint32
	Outcome leafv1.Outcome
	Failure leafv1.Failure
	Late    bool
	Node    [16]byte
}

// ReadLedger reads a database as PostgreSQL's superuser, past row-level security.
func ReadLedger(t testing.TB, databaseURL string) *Ledger {
	t.Helper()
	return readLedger(t, databaseURL, true)
}

// ReadAttempts is ReadLedger for long runs: it keeps no bytes of leaves.
func ReadAttempts(t testing.TB, databaseURL string) *Ledger {
	t.Helper()
	return readLedger(t, databaseURL, false)
}

func readLedger(t testing.TB, databaseURL string, leaves bool) *Ledger {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), readPatience)
	defer cancel()
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		t.Fatalf("connect to the database: %v", err)
	}
	defer conn.Close(ctx)
	l := &Ledger{Attempts: make(map[string][]Attempt)}
	snapshot := pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}
	if err := pgx.BeginTxFunc(ctx, conn, snapshot, func(tx pgx.Tx) error { return l.read(ctx, tx, leaves) }); err != nil {
		t.Fatalf("read the ledger: %v", err)
	}
	return l
}

func (l *Ledger) read(ctx context.Context, tx pgx.Tx, leaves bool) error {
	err := tx.QueryRow(ctx, `select next_index, (select count(*) from events) from logs where log_id = 1`).Scan(&l.nextIndex, &l.Events)
	if err != nil {
		return err
	}
	rows, err := tx.Query(ctx, `select leaf_index, leaf from attempts where log_id = 1 order by leaf_index`)
	if err != nil {
		return err
	}
	var index int64
	var bytes []byte
	_, err = pgx.ForEachRow(rows, []any{&index, &bytes}, func() error {
		leaf := new(leafv1.Leaf)
		if err := proto.Unmarshal(bytes, leaf); err != nil {
			return err
		}
		l.indexes = append(l.indexes, index)
		if leaves {
			l.Leaves = append(l.Leaves, append([]byte(nil), bytes...))
		}
		if a := leaf.GetAttempt(); a != nil {
			event := id.Event.Text(uuid.UUID(a.EventId))
			l.Attempts[event] = append(l.Attempts[event], Attempt{
				Number: a.Number, Outcome: a.Outcome, Failure: a.Failure, Late: a.Late, Node: [16]byte(a.NodeId),
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	rows, err = tx.Query(ctx, `select note from tree_heads where log_id = 1 order by tree_size`)
	if err != nil {
		return err
	}
	l.Notes, err = pgx.CollectRows(rows, pgx.RowTo[string])
	return err
}

// CheckDense fails if the leaves have not each index from 0 once, or if the counter disagrees.
func (l *Ledger) CheckDense(t testing.TB) {
	t.Helper()
	for i, index := range l.indexes {
		if index != int64(i) {
			t.Fatalf("the leaf after index %d has index %d", i-1, index)
		}
	}
	if l.nextIndex != int64(len(l.indexes)) {
		t.Fatalf("the log's next index is %d, but there are %d leaves", l.nextIndex, len(l.indexes))
	}
}

// CheckHeads fails if any head that was ever published is not the one that the leaves give at its size, or is not signed.
func (l *Ledger) CheckHeads(t testing.TB, c *LogClient) {
	t.Helper()
	var stored storedHashes
	size := int64(0)
	for _, text := range l.Notes {
		head := c.open(t, text)
		if head.Tree.N > int64(len(l.Leaves)) {
			t.Fatalf("a head of %d leaves was published, but there are %d", head.Tree.N, len(l.Leaves))
		}
		for ; size < head.Tree.N; size++ {
			hashes, err := tlog.StoredHashes(size, l.Leaves[size], &stored)
			if err != nil {
				t.Fatalf("hash leaf %d: %v", size, err)
			}
			stored = append(stored, hashes...)
		}
		root, err := tlog.TreeHash(head.Tree.N, &stored)
		if err != nil {
			t.Fatalf("root of %d leaves: %v", head.Tree.N, err)
		}
		if root != head.Tree.Hash {
			t.Fatalf("the head of %d leaves has root %v, but they give %v", head.Tree.N, head.Tree.Hash, root)
		}
	}
}

// storedHashes is a tlog.HashReader in memory.
type storedHashes []tlog.Hash

func (s *storedHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		hashes[i] = (*s)[index]
	}
	return hashes, nil
}

// AwaitSettled waits until nothing is queued and everything is sealed.
func AwaitSettled(t testing.TB, databaseURL string, patience time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, databaseURL)
	if err != nil {
		t.Fatalf("connect to the database: %v", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var queued, leaves, sealed int64
	for {
		err := conn.QueryRow(ctx, `select (select count(*) from delivery_queue), next_index, tree_size
			from logs join log_sealers using (log_id) where log_id = 1`).Scan(&queued, &leaves, &sealed)
		if err == nil && queued == 0 && leaves == sealed {
			return
		}
		if ctx.Err() != nil || err != nil {
			t.Fatalf("not settled after %v: %d deliveries queued, %d leaves, %d of them sealed (%v)\n%s",
				patience, queued, leaves, sealed, err, describeQueue(conn))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// describeQueue says what the queue holds of each destination and what the database is at, for the message of a test that
// fails.
func describeQueue(conn *pgx.Conn) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	rows, err := conn.Query(ctx, `select format('destination %s: %s queued, %s leased, %s of lost nodes, due %s to %s from now, attempts up to %s; %s',
			q.destination_id, count(*), count(q.lease_owner), count(q.lost_owner), min(q.due_at) - now(), max(q.due_at) - now(), max(q.attempts),
			(select to_jsonb(h) from destination_health h where h.destination_id = q.destination_id))
		from delivery_queue q group by q.destination_id
		union all
		select format('%s %s since %s (%s %s): %s', application_name, state, now() - query_start, wait_event_type, wait_event, left(query, 80))
		from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()`)
	if err != nil {
		return err.Error()
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err.Error()
	}
	return strings.Join(lines, "\n")
}
