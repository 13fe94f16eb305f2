package ledger

import (
	"context"
	"maps"
	"slices"

	"github.com/google/uuid"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/store"
)

// A node that was cut off may finish attempts after the others took it for dead. Its leaves are made before the statement that
// finds out, so that statement leaves such attempts out, and they come in a second one, with leaves that say so.

// fenced returns the results whose attempts the batch did not write since their node has no lease for them any more: the
// queue row has another owner, counts the attempt as lost, or is gone.
func (b *batch) fenced(indexes map[uuid.UUID]int64) (results []Result) {
	for i, result := range b.results {
		if _, written := indexes[b.leafOf[i]]; !written && result.Attempt != nil {
			results = append(results, result)
		}
	}
	return results
}

// recordFenced commits attempts of which record found that the queue has no lease of their node for them any more, and adds
// their indexes to those of the others. They came too late, unless their delivery was cancelled while they were under way.
// Should the node end before, they are not silent: whoever has the lease has recorded them as unknown, or will.
func (r *Recorder) recordFenced(ctx context.Context, results []Result, indexes map[uuid.UUID]int64) error {
	if len(results) == 0 {
		return nil
	}
	asked := store.CancelledUnderWayParams{NodeID: r.nodeID}
	for i := range results {
		duty := results[i].Duty
		asked.TenantIds = append(asked.TenantIds, duty.Event.TenantID)
		asked.DeliveryIds = append(asked.DeliveryIds, duty.DeliveryID)
		asked.Attempts = append(asked.Attempts, int32(duty.Attempts))
	}
	var cancelled []uuid.UUID
	err := r.patiently(ctx, len(results), 1, func(ctx context.Context, _ int) (err error) {
		cancelled, err = r.db.CancelledUnderWay(ctx, r.db.Engine(), asked)
		return err
	})
	if err != nil && !refused(err) {
		return err
	}
	for i := range results {
		results[i] = results[i].undecided(!slices.Contains(cancelled, results[i].Duty.DeliveryID))
	}
	return r.recordUndecided(ctx, results, indexes)
}

// recordUndecided commits attempts that change nothing, and adds their indexes.
func (r *Recorder) recordUndecided(ctx context.Context, results []Result, indexes map[uuid.UUID]int64) error {
	batch, written, err := r.write(ctx, results, 1)
	switch {
	case refused(err) && len(results) > 1:
		return r.apart(results, func(half []Result) error { return r.recordUndecided(ctx, half, indexes) })
	case refused(err):
		r.logRefused(batch, err)
		return nil
	case err != nil:
		return err
	}
	maps.Copy(indexes, written)
	return nil
}

// undecided is the result without its verdict: its attempt is recorded, and changes nothing else.
func (r Result) undecided(late bool) Result {
	attempt := *r.Attempt
	attempt.Late = late
	r.Attempt, r.Verdict = &attempt, Verdict{}
	return r
}

// yieldingTo returns the places of results by which this node takes over an attempt from itself, after others took it for
// dead, while the attempt's own result is in the batch too. One row of the queue changes once a statement: the attempt's own
// result says what happened, so it is the one that counts.
func yieldingTo(nodeID uuid.UUID, results []Result) (yielding []int) {
	for i := range results {
		a := results[i].Attempt
		if a == nil || a.Outcome != leafv1.Outcome_OUTCOME_UNKNOWN || a.NodeID != nodeID {
			continue
		}
		for j := range results {
			if j != i && results[j].Duty.DeliveryID == results[i].Duty.DeliveryID && results[j].Attempt != nil &&
				results[j].Attempt.Outcome != leafv1.Outcome_OUTCOME_UNKNOWN {
				yielding = append(yielding, i)
				break
			}
		}
	}
	return yielding
}
