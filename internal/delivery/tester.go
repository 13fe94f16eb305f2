package delivery

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

// TestEventType is the type of test events.
const TestEventType = "kapsel.test"

// notVerified is what leaves say of an event that no source signed.
const notVerified = "none"

// Tester sends test events. They do not stand in a lane: a test tells how a destination answers now, also while its
// deliveries are held.
type Tester struct {
	db       *store.DB
	nodeID   uuid.UUID
	sender   *Sender
	recorder *ledger.Recorder
}

// NewTester makes a tester whose results go to recorder.
func NewTester(db *store.DB, nodeID uuid.UUID, sender *Sender, recorder *ledger.Recorder) *Tester {
	return &Tester{db: db, nodeID: nodeID, sender: sender, recorder: recorder}
}

// Test stores a test event, sends it to the destination alone, once, and returns the id of the attempt when that is
// recorded. A test that fails becomes a dead letter: no delivery ends without a trace. If this node is lost meanwhile, the
// delivery is taken over like any other, and then follows the destination's retry policy.
//
// The audit entry is of who wishes the test; it is written with the event.
//
// When ctx ends early, the attempt is still made and recorded.
func (t *Tester) Test(ctx context.Context, destination *route.Destination, contentType string, body []byte, audit store.WriteAuditEntryParams) (attemptID uuid.UUID, err error) {
	event := &ledger.Event{
		TenantID: destination.TenantID, ID: id.New(), EndpointID: destination.EndpointID, ReceivedAt: time.Now(),
		Body: body, ContentType: contentType, Type: TestEventType, Preset: notVerified, BodySHA256: sha256.Sum256(body),
	}
	job := Job{
		Duty:        ledger.Duty{Event: event, DeliveryID: id.New(), DestinationID: destination.ID},
		Destination: destination, LeaseEnds: time.Now().Add(DefaultLease),
	}
	err = pgx.BeginFunc(ctx, t.db.Engine(), func(tx pgx.Tx) error {
		err := t.db.StoreTest(ctx, tx, store.StoreTestParams{
			TenantID: event.TenantID, EventID: event.ID, EndpointID: event.EndpointID, ReceivedAt: event.ReceivedAt,
			Body: body, ContentType: contentType, EventType: event.Type, Verification: event.Preset,
			DeliveryID: job.DeliveryID, DestinationID: &destination.ID, LeaseSeconds: DefaultLease.Seconds(), NodeID: t.nodeID,
		})
		if err != nil {
			return err
		}
		return t.db.WriteAuditEntry(ctx, tx, audit)
	})
	if err != nil {
		return uuid.Nil, fmt.Errorf("store test event: %w", err)
	}
	attempt := t.sender.Send(context.WithoutCancel(ctx), job)
	attempt.NodeID = t.nodeID
	recorded := make(chan struct{})
	t.recorder.Submit(ledger.Result{
		Duty: job.Duty, Attempt: attempt, Verdict: judgeTest(attempt),
		Recorded: func(int64) { close(recorded) },
	})
	select {
	case <-recorded:
		return attempt.ID, nil
	case <-ctx.Done():
		return uuid.Nil, ctx.Err()
	}
}

// judgeTest decides what follows a test: never another attempt.
func judgeTest(a *ledger.Attempt) ledger.Verdict {
	verdict := judge(route.RetryPolicy{MaxAttempts: 1}, a, 1, 0, 0, time.Time{})
	if verdict.Dead == leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXHAUSTED {
		verdict.Diagnosis = "a test is sent once: " + a.Diagnosis
	}
	return verdict
}
