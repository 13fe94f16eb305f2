package server

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/durationpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/fsck"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

func (r *rig) packages(a account, eventID string) []*kapselv1.ProofPackage {
	r.t.Helper()
	return must(a.attestation.GetProofPackage(r.t.Context(), &kapselv1.GetProofPackageRequest{
		Subject: &kapselv1.GetProofPackageRequest_EventId{EventId: eventID}, Wait: durationpb.New(10 * time.Second),
	}))(r.t).Packages
}

// checkDatabase fails unless fsck finds nothing wrong.
func (r *rig) checkDatabase() {
	r.t.Helper()
	tx := must(r.db.Engine().BeginTx(r.t.Context(), pgx.TxOptions{IsoLevel: pgx.RepeatableRead}))(r.t)
	defer tx.Rollback(r.t.Context())
	report := must(fsck.In(r.t.Context(), tx, fsck.Config{LogID: testLogID, Deep: true}))(r.t)
	for _, check := range report.Checks {
		if check.Violations > 0 {
			r.t.Errorf("fsck: %s: %v", check.Name, check.Shown)
		}
	}
}

func TestErasureLeavesTheTreeWhole(t *testing.T) {
	r := newRig(t)
	a, other := r.tenant(), r.tenant()
	events, _ := r.sealedLog(a, 3)
	kept, _ := r.sealedLog(other, 2)
	key := must(r.key.VerifierKey(testOrigin))(t)
	before, beside := r.packages(a, events[1]), r.packages(a, events[2])

	_, err := other.events.EraseEvent(t.Context(), &kapselv1.EraseEventRequest{EventId: events[1]})
	wantReason(t, err, connect.CodeNotFound, "EVENT_NOT_FOUND")
	erased := must(a.events.EraseEvent(t.Context(), &kapselv1.EraseEventRequest{EventId: events[1], Reason: "asked for"}))(t)
	if e := erased.Event; !e.PayloadGone || len(e.PayloadSha256) > 0 || e.PayloadBytes != 0 || e.State != kapselv1.EventState_EVENT_STATE_DELIVERED || len(e.Headers) > 0 || len(erased.ErasureIds) != 1 {
		t.Errorf("got %v", erased)
	}

	_, err = a.events.GetPayload(t.Context(), &kapselv1.GetPayloadRequest{EventId: events[1]})
	wantReason(t, err, connect.CodeFailedPrecondition, "PAYLOAD_GONE")
	_, err = a.events.ReplayEvent(t.Context(), &kapselv1.ReplayEventRequest{EventId: events[1]})
	wantReason(t, err, connect.CodeFailedPrecondition, "PAYLOAD_GONE")
	_, err = a.attestation.GetProofPackage(t.Context(), &kapselv1.GetProofPackageRequest{Subject: &kapselv1.GetProofPackageRequest_EventId{EventId: events[1]}})
	if code := connect.CodeOf(err); code != connect.CodeFailedPrecondition {
		t.Errorf("proof of an erased event: %v", err)
	}
	attempts := must(a.deliveries.ListAttempts(t.Context(), &kapselv1.ListAttemptsRequest{Parent: &kapselv1.ListAttemptsRequest_EventId{EventId: events[1]}}))(t).Attempts
	if len(attempts) != 1 || attempts[0].Url != "" || len(attempts[0].ResponseExcerpt) > 0 || attempts[0].Id != before[0].AttemptId {
		t.Fatalf("attempts of an erased event: %v", attempts)
	}
	_, err = a.attestation.GetProofPackage(t.Context(), &kapselv1.GetProofPackageRequest{Subject: &kapselv1.GetProofPackageRequest_AttemptId{AttemptId: attempts[0].Id}})
	wantReason(t, err, connect.CodeFailedPrecondition, "PAYLOAD_GONE")
	_, err = a.deliveries.RetryDelivery(t.Context(), &kapselv1.RetryDeliveryRequest{DeliveryId: attempts[0].DeliveryId})
	if code := connect.CodeOf(err); code == 0 {
		t.Error("the delivery of an erased event can be retried")
	}

	// What was proved stays so, and so does the leaf's place.
	var old struct {
		LeafHash string `json:"leaf_hash"`
	}
	if err := json.Unmarshal(before[0].Json, &old); err != nil {
		t.Fatal(err)
	}
	verifyPackage(t, before[0].Json, key)
	proof := must(a.attestation.GetInclusionProof(t.Context(), &kapselv1.GetInclusionProofRequest{Leaf: &kapselv1.GetInclusionProofRequest_AttemptId{AttemptId: attempts[0].Id}}))(t)
	var hash = must(json.Marshal(old.LeafHash))(t)
	if !bytes.Contains(before[0].Json, hash) || len(proof.Proof.LeafHash) != 32 || proof.Proof.LeafIndex != before[0].LeafIndex {
		t.Errorf("inclusion of an erased leaf: %v", proof.Proof)
	}
	if again := r.packages(a, events[2]); len(again) != len(beside) || again[0].LeafIndex != beside[0].LeafIndex {
		t.Errorf("packages of another event: %v, want %v", again, beside)
	}
	verifyPackage(t, r.packages(other, kept[0])[0].Json, key)

	record := must(a.attestation.GetProofPackage(t.Context(), &kapselv1.GetProofPackageRequest{
		Subject: &kapselv1.GetProofPackageRequest_AttemptId{AttemptId: erased.ErasureIds[0]}, Wait: durationpb.New(10 * time.Second),
	}))(t).Packages[0].Json
	report := must(verify.Verify(record, verify.Options{TrustedKeys: []string{key}}))(t)
	if e := report.Leaf.GetErasure(); !report.Full || len(e.GetLeafIndexes()) != 1 || int64(e.LeafIndexes[0]) != before[0].LeafIndex || len(e.ReasonSha256) != 32 {
		t.Errorf("the erasure's own leaf says %v", e)
	}

	again := must(a.events.EraseEvent(t.Context(), &kapselv1.EraseEventRequest{EventId: events[1]}))(t)
	if len(again.ErasureIds) != 1 {
		t.Errorf("erased again: %v", again)
	}
	r.checkDatabase()
}

func TestErasureCancelsWhatIsStillToBeDelivered(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(500)})
	eventID := r.send(a, e, "to be retried")
	r.eventually(func() bool {
		packages, err := a.attestation.GetProofPackage(t.Context(), &kapselv1.GetProofPackageRequest{
			Subject: &kapselv1.GetProofPackageRequest_EventId{EventId: eventID}, Wait: durationpb.New(10 * time.Second),
		})
		return err == nil && len(packages.Packages) > 0
	}, func() string { return "no attempt was made" })
	erased := must(a.events.EraseEvent(t.Context(), &kapselv1.EraseEventRequest{EventId: eventID}))(t)
	if erased.Event.State != kapselv1.EventState_EVENT_STATE_CANCELLED || !erased.Event.PayloadGone {
		t.Errorf("got %v", erased.Event)
	}
	r.checkDatabase()
}

// A node that has local time for UTC makes ids hours ahead of the times at which the database records what became of them.
func TestAClockHoursAheadHidesNothing(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	events, _ := r.sealedLog(a, 1)
	owner := must(pgx.Connect(t.Context(), r.database))(t)
	defer owner.Close(t.Context())
	must(owner.Exec(t.Context(), `alter table attempts disable trigger attempts_append_only; update attempts set recorded_at = recorded_at - interval '14 hours';
		alter table attempts enable trigger attempts_append_only`))(t)
	r.event(a, events[0], kapselv1.EventState_EVENT_STATE_DELIVERED)
	attempts := must(a.deliveries.ListAttempts(t.Context(), &kapselv1.ListAttemptsRequest{Parent: &kapselv1.ListAttemptsRequest_EventId{EventId: events[0]}}))(t).Attempts
	if len(attempts) != 1 {
		t.Errorf("%d attempts are listed, want 1", len(attempts))
	}
	erased := must(a.events.EraseEvent(t.Context(), &kapselv1.EraseEventRequest{EventId: events[0], Reason: "asked for"}))(t)
	if len(erased.ErasureIds) != 1 {
		t.Errorf("%d leaves say what was erased, want 1", len(erased.ErasureIds))
	}
	if left := r.count(`select count(*) from attempts where delivery_id <> attempt_id and leaf <> ''`); left != 0 {
		t.Errorf("%d leaves of the erased event are left", left)
	}
}
