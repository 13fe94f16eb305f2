package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

const testLogID = 1

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrate(ctx context.Context, url string) error {
	_, err := store.Migrate(ctx, url)
	return err
}

// rig is a database with a log.
type rig struct {
	t      testing.TB
	db     *store.DB
	url    string
	tenant uuid.UUID
	log    *slog.Logger
}

func newRig(t testing.TB, url string) *rig {
	t.Helper()
	r := &rig{t: t, url: url, tenant: id.New(), log: slog.New(slog.DiscardHandler)}
	var err error
	if r.db, err = store.Open(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.db.Close)
	if err := r.db.EnsureLog(t.Context(), r.db.Engine(), testLogID, "log.example.com/log/1"); err != nil {
		t.Fatal(err)
	}
	return r
}

func newSharedRig(t testing.TB) *rig {
	t.Helper()
	return newRig(t, pgtest.New(t, migrate))
}

func (r *rig) exec(sql string, arguments ...any) {
	r.t.Helper()
	if _, err := r.db.Engine().Exec(r.t.Context(), sql, arguments...); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
}

func (r *rig) execAsOwner(sql string, arguments ...any) {
	r.t.Helper()
	conn, err := pgx.Connect(r.t.Context(), r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(r.t.Context(), sql, arguments...); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
}

func (r *rig) count(sql string, arguments ...any) int {
	r.t.Helper()
	var n int
	if err := r.db.Engine().QueryRow(r.t.Context(), sql, arguments...).Scan(&n); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// duty queues a delivery that owner holds.
func (r *rig) duty(owner uuid.UUID, attempts int) Duty {
	r.t.Helper()
	body := []byte("{}")
	d := Duty{
		Event: &Event{
			TenantID: r.tenant, ID: id.New(), EndpointID: id.New(), ReceivedAt: time.Now(), Body: body, Preset: "none", BodySHA256: sha256.Sum256(body),
		},
		DeliveryID: id.New(), DestinationID: id.New(), Attempts: attempts,
	}
	r.exec(`insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, attempts, due_at, lease_owner)
		values ($1, $2, $3, $4, $5, $6, now() + interval '75 s', $7)`,
		r.tenant, d.DeliveryID, d.Event.ID, d.Event.EndpointID, d.DestinationID, attempts, owner)
	return d
}

func succeeded(node uuid.UUID) *Attempt {
	return &Attempt{
		ID: id.New(), URL: "https://example.com/", NodeID: node, StartedAt: time.Now(), Duration: time.Millisecond,
		Outcome: leafv1.Outcome_OUTCOME_SUCCEEDED, StatusCode: 200, Response: &Response{SHA256: sha256.Sum256(nil), Excerpt: []byte("ok")},
	}
}

func failed(node uuid.UUID) *Attempt {
	a := succeeded(node)
	a.Outcome, a.Failure, a.StatusCode, a.Diagnosis = leafv1.Outcome_OUTCOME_FAILED, leafv1.Failure_FAILURE_STATUS, 500, "status 500"
	return a
}

// recorder runs one until finish is called, which waits until all is recorded.
func (r *rig) recorder(node uuid.UUID, recorded func(int)) (recorder *Recorder, finish func()) {
	r.t.Helper()
	recorder = NewRecorder(r.db, node, testLogID, r.log, recorded)
	done := make(chan error, 1)
	go func() { done <- recorder.Run(context.Background()) }()
	return recorder, func() {
		r.t.Helper()
		recorder.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		defer cancel()
		if err := recorder.Wait(ctx); err != nil {
			r.t.Fatal(err)
		}
		if err := <-done; err != nil {
			r.t.Errorf("recorder: %v", err)
		}
	}
}

// record records results at once and returns what their callbacks got.
func (r *rig) record(node uuid.UUID, results ...Result) []int64 {
	r.t.Helper()
	recorder, finish := r.recorder(node, nil)
	indexes := make([]int64, len(results))
	for i, result := range results {
		indexes[i] = -2
		result.Recorded = func(index int64) { indexes[i] = index }
		recorder.Submit(result)
	}
	finish()
	return indexes
}

type storedLeaf struct {
	attemptID uuid.UUID
	outcome   int16
	leaf      *leafv1.Leaf
}

// leaves reads the ledger and fails unless its indexes are dense and the log's counter follows the last.
func (r *rig) leaves() []storedLeaf {
	r.t.Helper()
	rows, err := r.db.Engine().Query(r.t.Context(), "select leaf_index, attempt_id, outcome, leaf from attempts order by leaf_index")
	if err != nil {
		r.t.Fatal(err)
	}
	defer rows.Close()
	var leaves []storedLeaf
	for rows.Next() {
		s := storedLeaf{leaf: new(leafv1.Leaf)}
		var index int64
		var data []byte
		if err := rows.Scan(&index, &s.attemptID, &s.outcome, &data); err != nil {
			r.t.Fatal(err)
		}
		if index != int64(len(leaves)) {
			r.t.Fatalf("leaf %d stands at index %d", len(leaves), index)
		}
		if err := proto.Unmarshal(data, s.leaf); err != nil {
			r.t.Fatalf("leaf %d: %v", index, err)
		}
		leaves = append(leaves, s)
	}
	if rows.Err() != nil {
		r.t.Fatal(rows.Err())
	}
	if next := r.count("select next_index from logs"); next != len(leaves) {
		r.t.Fatalf("the log's next index is %d after %d leaves", next, len(leaves))
	}
	return leaves
}

func TestLeafIndexesAreDenseAndGivenOnce(t *testing.T) {
	const results, submitters = 400, 4
	r := newSharedRig(t)
	var leavesTold atomic.Int64
	var mu sync.Mutex
	told := make(map[uuid.UUID]int64) // by attempt
	var verdicts [3]int
	var nodes sync.WaitGroup
	for range 2 {
		node := id.New()
		var duties []Duty
		for range results {
			duties = append(duties, r.duty(node, 0))
		}
		recorder, finish := r.recorder(node, func(n int) { leavesTold.Add(int64(n)) })
		nodes.Go(func() {
			var group sync.WaitGroup
			for s := range submitters {
				random := rand.New(rand.NewPCG(uint64(s), 7))
				group.Go(func() {
					for i := s; i < results; i += submitters {
						result := Result{Duty: duties[i], Attempt: failed(node)}
						kind := random.IntN(3)
						switch kind {
						case 0:
							result.Attempt, result.Verdict.Delivered = succeeded(node), true
						case 1:
							result.Verdict.RetryAt = time.Now().Add(time.Hour)
						case 2:
							result.Verdict = Verdict{Dead: leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXHAUSTED, Diagnosis: "no more"}
						}
						result.Recorded = func(index int64) {
							mu.Lock()
							defer mu.Unlock()
							if _, twice := told[result.Attempt.ID]; twice {
								t.Errorf("attempt %s was told twice", result.Attempt.ID)
							}
							told[result.Attempt.ID] = index
						}
						mu.Lock()
						verdicts[kind]++
						mu.Unlock()
						recorder.Submit(result)
						if random.IntN(20) == 0 {
							time.Sleep(time.Duration(random.IntN(4)) * time.Millisecond) // another batch
						}
					}
				})
			}
			group.Wait()
			finish()
		})
	}
	nodes.Wait()

	leaves := r.leaves()
	if want := 2*results + verdicts[2]; len(leaves) != want || leavesTold.Load() != int64(want) {
		t.Errorf("%d leaves, %d told of, want %d", len(leaves), leavesTold.Load(), want)
	}
	for attemptID, index := range told {
		if index < 0 || index >= int64(len(leaves)) || leaves[index].attemptID != attemptID {
			t.Errorf("attempt %s was told index %d", attemptID, index)
		}
	}
	if len(told) != 2*results {
		t.Errorf("%d results were told of, want %d", len(told), 2*results)
	}
	if got := r.count("select count(*) from delivery_queue where attempts = 1 and lease_owner is null"); got != verdicts[1] {
		t.Errorf("%d deliveries wait for a retry, want %d", got, verdicts[1])
	}
	if got := r.count("select count(*) from delivery_queue"); got != verdicts[1] {
		t.Errorf("%d deliveries are live, want %d", got, verdicts[1])
	}
	if got := r.count(`select count(*) from dead_letters d join attempts a on a.leaf_index = d.leaf_index and a.outcome = 0
		and a.delivery_id = d.dead_letter_id`); got != verdicts[2] {
		t.Errorf("%d dead letters with their leaf, want %d", got, verdicts[2])
	}
}

func TestLateResultIsALeafAndChangesNothingElse(t *testing.T) {
	node, other := id.New(), id.New()
	retryAt := time.Now().Add(time.Hour)
	delivered := Verdict{Delivered: true}
	dead := Verdict{Dead: leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXHAUSTED, Diagnosis: "no more"}
	for _, verdict := range []Verdict{delivered, {RetryAt: retryAt}, dead} {
		for name, lose := range map[string]func(r *rig, result *Result){
			"another node holds it":        func(r *rig, _ *Result) { r.exec(`update delivery_queue set lease_owner = $1`, other) },
			"nobody holds it":              func(r *rig, _ *Result) { r.exec(`update delivery_queue set lease_owner = null`) },
			"it was tried again meanwhile": func(r *rig, _ *Result) { r.exec(`update delivery_queue set attempts = attempts + 1`) },
			"it is closed":                 func(r *rig, _ *Result) { r.exec(`delete from delivery_queue`) },
			"its node knows":               func(_ *rig, result *Result) { result.Attempt.Late = true },
		} {
			t.Run(fmt.Sprintf("%+v/%s", verdict.Dead, name), func(t *testing.T) {
				r := newSharedRig(t)
				result := Result{Duty: r.duty(node, 2), Attempt: failed(node), Verdict: verdict}
				lose(r, &result)
				const state = `select coalesce(string_agg(q::text, ';'), 'none') from delivery_queue q`
				var before, after string
				if err := r.db.Engine().QueryRow(t.Context(), state).Scan(&before); err != nil {
					t.Fatal(err)
				}
				indexes := r.record(node, result)
				if err := r.db.Engine().QueryRow(t.Context(), state).Scan(&after); err != nil {
					t.Fatal(err)
				}
				if before != after {
					t.Errorf("the queue changed from %s to %s", before, after)
				}
				leaves := r.leaves()
				if len(leaves) != 1 || leaves[0].leaf.GetAttempt().GetNumber() != 3 || !leaves[0].leaf.GetAttempt().GetLate() || indexes[0] != 0 {
					t.Errorf("leaves %v, told index %d: want just the attempt, number 3, late", leaves, indexes[0])
				}
				if got := r.count("select count(*) from dead_letters"); got != 0 {
					t.Errorf("%d dead letters", got)
				}
			})
		}
	}
}

func TestLateResultsOfABatchDoNotTouchTheOthers(t *testing.T) {
	r := newSharedRig(t)
	node := id.New()
	var results []Result
	late := make(map[uuid.UUID]bool)
	for i := range 100 {
		result := Result{Duty: r.duty(node, 0), Attempt: succeeded(node), Verdict: Verdict{Delivered: true}}
		if i%2 == 0 {
			result.Attempt, result.Verdict = failed(node), Verdict{RetryAt: time.Now().Add(time.Hour)}
		}
		if late[result.Attempt.ID] = i%5 == 0; late[result.Attempt.ID] {
			r.exec(`update delivery_queue set lease_owner = $2 where delivery_id = $1`, result.Duty.DeliveryID, id.New())
		}
		results = append(results, result)
	}
	indexes := r.record(node, results...)
	leaves := r.leaves()
	if len(leaves) != len(results) {
		t.Fatalf("%d leaves for %d attempts", len(leaves), len(results))
	}
	for i, result := range results {
		leaf := leaves[indexes[i]]
		if got := leaf.leaf.GetAttempt().GetLate(); leaf.attemptID != result.Attempt.ID || got != late[result.Attempt.ID] {
			t.Errorf("result %d was told the leaf of attempt %s, late %v: want its own, late %v", i, leaf.attemptID, got, late[result.Attempt.ID])
		}
	}
	if got := r.count("select count(*) from delivery_queue where attempts = 0 and lease_owner is not null"); got != 20 {
		t.Errorf("%d deliveries are with their new owners, want 20", got)
	}
	if got := r.count("select count(*) from delivery_queue"); got != 20+40 {
		t.Errorf("%d deliveries are live, want 60", got)
	}
}

// Others took this node for dead while it was cut off, and then it was the first to claim its own row.
func TestOwnResultCountsBesideItsOwnTakeover(t *testing.T) {
	for name, ownFirst := range map[string]bool{"result first": true, "takeover first": false} {
		t.Run(name, func(t *testing.T) {
			r := newSharedRig(t)
			node := id.New()
			own := Result{Duty: r.duty(node, 0), Attempt: succeeded(node), Verdict: Verdict{Delivered: true}}
			takeover := Result{Duty: own.Duty, Attempt: LostAttempt(node, "https://example.com/"), Verdict: Verdict{RetryAt: time.Now()}}
			results := []Result{own, takeover}
			if !ownFirst {
				results = []Result{takeover, own}
			}
			r.record(node, results...)
			for _, leaf := range r.leaves() {
				a := leaf.leaf.GetAttempt()
				if lost := a.GetOutcome() == leafv1.Outcome_OUTCOME_UNKNOWN; a.GetLate() != lost {
					t.Errorf("outcome %v, late %v", a.GetOutcome(), a.GetLate())
				}
			}
			if got := len(r.leaves()); got != 2 {
				t.Errorf("%d leaves, want 2", got)
			}
			if got := r.count("select count(*) from delivery_queue"); got != 0 {
				t.Error("what was delivered is still queued")
			}
		})
	}
}

func TestGivenUpDeliveryLeavesALetterAndItsLeaf(t *testing.T) {
	r := newSharedRig(t)
	var said bytes.Buffer
	r.log = slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))
	node := id.New()
	const diagnosis = "all 3 attempts failed; the last one: status 500\x00\xff"
	withAttempt := Result{Duty: r.duty(node, 2), Attempt: failed(node),
		Verdict: Verdict{Dead: leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXHAUSTED, Diagnosis: diagnosis}}
	defect := Result{Duty: r.duty(node, 0), Verdict: Verdict{Dead: leafv1.DeadLetterReason_DEAD_LETTER_REASON_MALFORMED_PAYLOAD, Diagnosis: "not JSON"}}
	defect.Duty.DestinationID = uuid.Nil
	lost := Result{Duty: r.duty(id.New(), 0), Verdict: defect.Verdict}
	indexes := r.record(node, withAttempt, defect, lost)

	if want := "given up\" event_id=" + id.Event.Text(withAttempt.Duty.Event.ID); !strings.Contains(said.String(), want) || strings.Count(said.String(), "given up") != 2 {
		t.Errorf("want two lines of what was given up, one with %q:\n%s", want, said.String())
	}
	leaves := r.leaves()
	if len(leaves) != 3 {
		t.Fatalf("%d leaves, want an attempt and two dead letters", len(leaves))
	}
	attempt, letter, malformed := leaves[0].leaf.GetAttempt(), leaves[1].leaf.GetDeadLetter(), leaves[2].leaf.GetDeadLetter()
	if indexes[0] != 0 || indexes[1] != 2 || indexes[2] != -1 {
		t.Errorf("told indexes %v, want 0, 2 and none", indexes)
	}
	if attempt.GetNumber() != 3 || leaves[0].outcome != int16(leafv1.Outcome_OUTCOME_FAILED) || leaves[1].outcome != 0 || leaves[2].outcome != 0 {
		t.Errorf("leaves: %v", leaves)
	}
	var stored string
	if err := r.db.Engine().QueryRow(t.Context(), `select diagnosis from dead_letters where dead_letter_id = $1 and reason = 1
		and attempts = 3 and leaf_index = 1 and destination_id = $2 and event_id = $3`,
		withAttempt.Duty.DeliveryID, withAttempt.Duty.DestinationID, withAttempt.Duty.Event.ID).Scan(&stored); err != nil {
		t.Fatal(err)
	}
	if digest := sha256.Sum256([]byte(stored)); string(letter.GetDiagnosisSha256()) != string(digest[:]) || !strings.HasPrefix(stored, "all 3 attempts") {
		t.Errorf("the letter's leaf is not about the stored diagnosis %q", stored)
	}
	if letter.GetAttempts() != 3 || uuid.UUID(letter.GetDeliveryId()) != withAttempt.Duty.DeliveryID ||
		letter.GetReason() != leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXHAUSTED {
		t.Errorf("dead letter: %v", letter)
	}
	if malformed.GetDeliveryId() != nil || malformed.GetDestinationId() != nil || malformed.GetAttempts() != 0 ||
		malformed.GetReason() != leafv1.DeadLetterReason_DEAD_LETTER_REASON_MALFORMED_PAYLOAD {
		t.Errorf("dead letter of an event: %v", malformed)
	}
	if got := r.count("select count(*) from dead_letters where destination_id is null and leaf_index = 2"); got != 1 {
		t.Errorf("%d dead letters of events, want 1", got)
	}
	if got := r.count("select count(*) from delivery_queue"); got != 1 {
		t.Errorf("%d deliveries are live, want the one whose lease was lost", got)
	}
}

func TestRetryGoesBackIntoTheQueue(t *testing.T) {
	r := newSharedRig(t)
	node := id.New()
	result := Result{Duty: r.duty(node, 4), Attempt: failed(node), Verdict: Verdict{RetryAt: time.Now().Add(90 * time.Minute).Truncate(time.Microsecond)}}
	r.exec(`update delivery_queue set lost_owner = $1`, id.New())
	r.record(node, result)
	var dueAt time.Time
	var attempts int
	var free bool
	if err := r.db.Engine().QueryRow(t.Context(), `select due_at, attempts, lease_owner is null and lost_owner is null from delivery_queue`).
		Scan(&dueAt, &attempts, &free); err != nil {
		t.Fatal(err)
	}
	if dueAt.Sub(result.Verdict.RetryAt).Abs() > time.Second || attempts != 5 || !free {
		t.Errorf("due at %v after %d attempts, free %v: want %v, 5, true", dueAt, attempts, free, result.Verdict.RetryAt)
	}
}

func TestRefusedResultDoesNotHoldUpItsBatch(t *testing.T) {
	for name, spoil := range map[string]func(r *rig, result *Result){
		"by the database": func(r *rig, result *Result) {
			r.execAsOwner(fmt.Sprintf(`create function refuse() returns trigger language plpgsql as
				$$ begin if old.delivery_id = '%s' then raise check_violation; end if; return old; end $$`, result.Duty.DeliveryID))
			r.execAsOwner(`create trigger refuse before delete on delivery_queue for each row execute function refuse()`)
		},
		"by the leaf's bounds": func(_ *rig, result *Result) { result.Attempt.URL = "https://example.com/" + strings.Repeat("u", 4000) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newSharedRig(t)
			node := id.New()
			var results []Result
			for range 100 {
				results = append(results, Result{Duty: r.duty(node, 0), Attempt: succeeded(node), Verdict: Verdict{Delivered: true}})
			}
			spoil(r, &results[37])
			for i, index := range r.record(node, results...) {
				if refused := index == -1; refused != (i == 37) || index < -1 {
					t.Errorf("result %d was told index %d", i, index)
				}
			}
			if got := len(r.leaves()); got != 99 {
				t.Errorf("%d leaves, want 99", got)
			}
			if got := r.count("select count(*) from delivery_queue where delivery_id = $1 and lease_owner = $2", results[37].Duty.DeliveryID, node); got != 1 {
				t.Error("the refused one is not left to the takeover")
			}
		})
	}
}

// The database dies and comes back, again and again, in the middle of commits.
func TestResultsLandOnceWhileTheDatabaseRestarts(t *testing.T) {
	const results = 1500
	server := pgtest.Durable(t)
	url := server.ConnString("postgres")
	if err := migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, url)
	node := id.New()
	var duties []Duty
	for range results {
		duties = append(duties, r.duty(node, 0))
	}
	recorder, finish := r.recorder(node, nil)
	var told atomic.Int64
	submitted := make(chan struct{})
	go func() {
		defer close(submitted)
		for i, duty := range duties {
			recorder.Submit(Result{Duty: duty, Attempt: succeeded(node), Verdict: Verdict{Delivered: true}, Recorded: func(index int64) {
				if index >= 0 {
					told.Add(1)
				}
			}})
			if i%5 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	for range 3 {
		time.Sleep(60 * time.Millisecond)
		if err := server.Restart(t.Context(), true); err != nil {
			t.Fatal(err)
		}
	}
	<-submitted
	finish()
	r.db.Engine().Reset() // drops the connections that the restarts broke
	seen := make(map[uuid.UUID]bool)
	for _, leaf := range r.leaves() {
		if seen[leaf.attemptID] {
			t.Errorf("attempt %s has two leaves", leaf.attemptID)
		}
		seen[leaf.attemptID] = true
	}
	if len(seen) != results || told.Load() != results || r.count("select count(*) from delivery_queue") != 0 {
		t.Errorf("%d leaves, %d told of, %d live: want %d, %d, 0", len(seen), told.Load(), r.count("select count(*) from delivery_queue"), results, results)
	}
}

// A statement whose answer was lost may still wait for the log. The next try waits for it, also where the attempts change
// nothing in the queue.
func TestNextTryWaitsForTheOneBefore(t *testing.T) {
	const waiting = `select count(distinct pid) from pg_locks where not granted
		and pid in (select pid from pg_stat_activity where datname = current_database())`
	for name, late := range map[string]bool{"with a verdict": false, "too late for one": true} {
		t.Run(name, func(t *testing.T) {
			r := newSharedRig(t)
			node := id.New()
			result := Result{Duty: r.duty(node, 0), Attempt: succeeded(node), Verdict: Verdict{Delivered: true}}
			if late {
				result = result.undecided(true)
			}
			batch, err := newBatch(node, testLogID, []Result{result})
			if err != nil {
				t.Fatal(err)
			}
			recorder := NewRecorder(r.db, node, testLogID, r.log, nil)
			tx, err := r.db.Engine().Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback(context.Background())
			if _, err := tx.Exec(t.Context(), "select from logs for update"); err != nil {
				t.Fatal(err)
			}
			began, done := time.Now(), make(chan error, 2)
			for try := 1; try <= 2; try++ {
				go func() {
					_, err := recorder.commit(context.Background(), batch, try, began)
					done <- err
				}()
				for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(3 * time.Millisecond) {
					if r.count(waiting) == try {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("try %d does not wait", try)
					}
				}
			}
			if err := tx.Rollback(t.Context()); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			if got := len(r.leaves()); got != 1 {
				t.Errorf("%d leaves of one attempt", got)
			}
		})
	}
}

func TestSubmitWaitsWhileAllRoomIsTaken(t *testing.T) {
	r := newSharedRig(t)
	node := id.New()
	recorder := NewRecorder(r.db, node, testLogID, slog.New(slog.DiscardHandler), nil)
	duty := r.duty(node, 0)
	for range maxWaiting {
		recorder.Submit(Result{Duty: duty, Attempt: failed(node), Verdict: Verdict{RetryAt: time.Now()}})
	}
	entered := make(chan struct{})
	go func() {
		recorder.Submit(Result{Duty: duty, Attempt: failed(node), Verdict: Verdict{RetryAt: time.Now()}})
		close(entered)
	}()
	select {
	case <-entered:
		t.Fatal("more results wait than may")
	case <-time.After(50 * time.Millisecond):
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go recorder.Run(ctx)
	<-entered
	recorder.Close()
	if err := recorder.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := len(r.leaves()); got != maxWaiting+1 {
		t.Errorf("%d leaves, want %d", got, maxWaiting+1)
	}
}
