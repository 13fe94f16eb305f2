package kapsel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

const (
	// sealWait is how long one call waits for a seal, and sealAnswer how long the server may take for its answer then.
	sealWait   = 30 * time.Second
	sealAnswer = 15 * time.Second
	// sealPause is the least pause between two calls.
	sealPause = 100 * time.Millisecond
)

// Proof is a proof package that was verified.
type Proof struct {
	// JSON is the package, to be kept as a file.
	JSON []byte
	// Report says what was checked, and what the leaf says. It is a full proof.
	Report *verify.Report
}

// GetVerifiedProofs fetches the proof packages of an event (evt_…), a delivery (dlv_…) or an attempt (att_…), in the order of the log, and verifies
// each: it is a full proof under one of the trusted keys, and of what was asked for. If the log has not been sealed yet it waits for
// that as long as ctx lasts. Before anything is recorded it answers NOT_FOUND: call WaitForEvent first.
//
// Trusted keys are verifier keys of the log, "<origin>+<key id>+<base64>", at least one, and must come from elsewhere than the server. A
// package that proves nothing is a *verify.Error. Nothing proves that there are no more attempts than those that the server shows.
func (c *Client) GetVerifiedProofs(ctx context.Context, id string, trustedKeys ...string) ([]Proof, error) {
	if len(trustedKeys) == 0 {
		return nil, errors.New("verify proofs: give the log's public key, from elsewhere than the server")
	}
	request := &kapselv1.GetProofPackageRequest{Wait: durationpb.New(sealWait)}
	switch kind, _, _ := strings.Cut(id, "_"); kind {
	case "evt":
		request.Subject = &kapselv1.GetProofPackageRequest_EventId{EventId: id}
	case "dlv":
		request.Subject = &kapselv1.GetProofPackageRequest_DeliveryId{DeliveryId: id}
	case "att":
		request.Subject = &kapselv1.GetProofPackageRequest_AttemptId{AttemptId: id}
	default:
		return nil, fmt.Errorf("get proofs: %q is not the id of an event (evt_…), a delivery (dlv_…) or an attempt (att_…)", id)
	}
	packages, err := c.sealedPackages(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("get proofs of %s: %w", id, err)
	}
	if len(packages) == 0 {
		return nil, fmt.Errorf("get proofs of %s: the server answered none", id)
	}
	proofs := make([]Proof, len(packages))
	for i, p := range packages {
		report, err := verify.Verify(p.Json, verify.Options{TrustedKeys: trustedKeys})
		if err == nil {
			err = names(report, id)
		}
		if err != nil {
			return nil, fmt.Errorf("proof %d of %d of %s: %w", i+1, len(packages), id, err)
		}
		proofs[i] = Proof{JSON: p.Json, Report: report}
	}
	return proofs, nil
}

// sealedPackages asks until the log is sealed, or ctx ends.
func (c *Client) sealedPackages(ctx context.Context, request *kapselv1.GetProofPackageRequest) ([]*kapselv1.ProofPackage, error) {
	for {
		bounded, cancel := context.WithTimeout(ctx, sealWait+sealAnswer)
		response, err := c.Attestation.GetProofPackage(bounded, request)
		cancel()
		if Reason(err) != "NOT_SEALED" {
			return response.GetPackages(), err
		}
		delay, _ := RetryDelay(err)
		if ended := sleep(ctx, max(delay, sealPause)); ended != nil {
			return nil, fmt.Errorf("%w: %w", ended, err)
		}
	}
}

// names refuses the proof of something else than what was asked for.
func names(report *verify.Report, id string) error {
	var leaf struct {
		EventID    string `json:"event_id"`
		DeliveryID string `json:"delivery_id"`
		AttemptID  string `json:"attempt_id"`
		ErasureID  string `json:"erasure_id"`
	}
	// Verify has compared it with the leaf.
	if err := json.Unmarshal(report.Package.Attempt, &leaf); err != nil {
		return &verify.Error{Check: verify.CheckLeaf, Reason: err.Error()}
	}
	switch id {
	case leaf.EventID, leaf.DeliveryID, leaf.AttemptID, leaf.ErasureID:
		return nil
	}
	return &verify.Error{Check: verify.CheckLeaf, Reason: fmt.Sprintf("it proves leaf %d, which does not name %s", report.Package.LeafIndex, id)}
}
