package ledger

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/id"
)

// runAgain runs a recorder as the supervisor does: after a panic once more. It returns how often it panicked, once the
// recorder has ended.
func runAgain(ctx context.Context, recorder *Recorder) (panics int, err error) {
	for {
		err, panicked := func() (err error, panicked bool) {
			defer func() { panicked = recover() != nil }()
			return recorder.Run(ctx), false
		}()
		if !panicked {
			return panics, err
		}
		panics++
	}
}

// The recorder panics with results in its hands, before and after their commit: all are recorded all the same, and once.
func TestResultsInThePanickingRecordersHandsAreRecordedOnce(t *testing.T) {
	const results = 400
	for _, faults := range []string{
		"recorder.taken=panic:0.5",
		"recorder.before_commit=panic:0.5",
		"recorder.after_commit=panic:0.5",
		"recorder.taken=panic:0.3;recorder.after_commit=panic:0.3;recorder.before_commit=error:0.3",
	} {
		t.Run(faults, func(t *testing.T) {
			r := newSharedRig(t)
			schedule, err := fault.Parse("seed=7;" + faults)
			if err != nil {
				t.Fatal(err)
			}
			fault.Enable(schedule)
			defer fault.Enable(nil)
			node := id.New()
			recorder := NewRecorder(r.db, node, testLogID, slog.New(slog.DiscardHandler), nil)
			done := make(chan error, 1)
			go func() {
				_, err := runAgain(context.Background(), recorder)
				done <- err
			}()
			var told atomic.Int64
			for i := range results {
				result := Result{Duty: r.duty(node, 0), Attempt: succeeded(node), Verdict: Verdict{Delivered: true}, Recorded: func(int64) { told.Add(1) }}
				if i%3 == 0 {
					result.Attempt, result.Verdict = failed(node), Verdict{RetryAt: time.Now().Add(time.Hour)}
				}
				recorder.Submit(result)
			}
			recorder.Close()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := recorder.Wait(ctx); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Errorf("recorder: %v", err)
			}
			if got := told.Load(); got != results {
				t.Errorf("%d callbacks for %d results", got, results)
			}
			if n, distinct := r.count("select count(*) from attempts"), r.count("select count(distinct attempt_id) from attempts"); n != distinct {
				t.Errorf("%d leaves of %d attempts", n, distinct)
			}
			// Five panics in a row make a batch look refused: its results are left to their leases, like those of a lost node.
			left := r.count("select count(*) from delivery_queue where lease_owner is not null")
			recorded := r.count("select count(*) from attempts")
			if left+recorded != results || left > results/20 {
				t.Errorf("%d recorded, %d left to their leases, of %d", recorded, left, results)
			}
		})
	}
}

// One result that makes the code panic each time must not hold up the others.
func TestResultThatPanicsDoesNotHoldUpItsBatch(t *testing.T) {
	r := newSharedRig(t)
	node := id.New()
	var results []Result
	for range 20 {
		results = append(results, Result{Duty: r.duty(node, 0), Attempt: succeeded(node), Verdict: Verdict{Delivered: true}})
	}
	results[7].Duty.Event = nil
	indexes := r.record(node, results...)
	for i, index := range indexes {
		if refused := index == -1; refused != (i == 7) {
			t.Errorf("result %d was told index %d", i, index)
		}
	}
	if got := len(r.leaves()); got != 19 {
		t.Errorf("%d leaves, want 19", got)
	}
}
