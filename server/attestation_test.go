package server

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// sealedLog delivers n events and waits until their attempts are sealed. It returns the event ids and the head.
func (r *rig) sealedLog(a account, n int) ([]string, *kapselv1.TreeHead) {
	r.t.Helper()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	recorded := r.count("select coalesce(max(leaf_index) + 1, 0) from attempts")
	events := make([]string, n)
	for i := range events {
		events[i] = r.send(a, e, strings.Repeat("x", i))
	}
	var head *kapselv1.TreeHead
	r.eventually(func() bool {
		response, err := a.attestation.GetTreeHead(r.t.Context(), &kapselv1.GetTreeHeadRequest{})
		head = response.GetTreeHead()
		return err == nil && head.TreeSize >= int64(recorded+n)
	}, func() string { return "the log does not grow" })
	return events, head
}

func TestLogProvesItselfToAnyone(t *testing.T) {
	r := newRig(t)
	_, head := r.sealedLog(r.tenant(), 7)
	anyone := r.account(id.New(), "").attestation

	log := must(anyone.GetLog(t.Context(), &kapselv1.GetLogRequest{LogId: "1"}))(t).Log
	key := must(r.key.VerifierKey(testOrigin))(t)
	if log.Origin != testOrigin || log.Url != "https://kapsel.example.com/log/1" || len(log.Keys) != 1 || log.Keys[0].VerifierKey != key || log.Keys[0].RetireTime != nil {
		t.Errorf("got %v", log)
	}
	signed, at, err := checkpoint.Open(head.Note, testOrigin, r.key.Public())
	if err != nil || signed.Size != head.TreeSize || !bytes.Equal(signed.Root[:], head.RootHash) || !at.Equal(head.SignTime.AsTime()) {
		t.Fatalf("note %v at %v, %v; head %v", signed, at, err, head)
	}
	if len(head.Cosignatures) != 0 {
		t.Errorf("the log's own lines are listed as those of others: %v", head.Cosignatures)
	}
	for index := range head.TreeSize {
		got := must(anyone.GetInclusionProof(t.Context(), &kapselv1.GetInclusionProofRequest{
			Leaf: &kapselv1.GetInclusionProofRequest_LeafIndex{LeafIndex: index}, TreeSize: proto.Int64(head.TreeSize),
		}))(t)
		err := merkle.VerifyInclusion(index, got.Proof.TreeSize, merkle.Hash(got.Proof.LeafHash), hashList(got.Proof.AuditPath), merkle.Hash(got.TreeHead.RootHash))
		if err != nil || got.TreeHead.TreeSize != got.Proof.TreeSize {
			t.Errorf("leaf %d: %v", index, err)
		}
		byHash := must(anyone.GetInclusionProof(t.Context(), &kapselv1.GetInclusionProofRequest{
			Leaf: &kapselv1.GetInclusionProofRequest_LeafHash{LeafHash: got.Proof.LeafHash}, TreeSize: proto.Int64(head.TreeSize),
		}))(t)
		if !proto.Equal(byHash.Proof, got.Proof) {
			t.Errorf("leaf %d by its hash: %v", index, byHash.Proof)
		}
	}
	r.exec("insert into cosignatures (log_id, tree_size, key_name, line) values (1, $1, 'witness.example.com', '— witness.example.com 3q2+7w==')", head.TreeSize)
	again := must(anyone.GetTreeHead(t.Context(), &kapselv1.GetTreeHeadRequest{TreeSize: proto.Int64(head.TreeSize)}))(t).TreeHead
	if len(again.Cosignatures) != 1 || again.Cosignatures[0].KeyName != "witness.example.com" || again.Cosignatures[0].SignTime != nil {
		t.Errorf("cosignatures %v", again.Cosignatures)
	}
}

func hashList(raw [][]byte) []merkle.Hash {
	list := make([]merkle.Hash, len(raw))
	for i := range raw {
		list[i] = merkle.Hash(raw[i])
	}
	return list
}

func TestConsistencyOfHeads(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	_, first := r.sealedLog(a, 3)
	_, second := r.sealedLog(a, 9)
	got := must(a.attestation.GetConsistencyProof(t.Context(), &kapselv1.GetConsistencyProofRequest{FromSize: first.TreeSize, ToSize: proto.Int64(second.TreeSize)}))(t)
	err := merkle.VerifyConsistency(first.TreeSize, second.TreeSize, hashList(got.Proof.Hashes), merkle.Hash(first.RootHash), merkle.Hash(second.RootHash))
	if err != nil || got.TreeHead.GetTreeSize() != second.TreeSize {
		t.Errorf("got %v: %v", got, err)
	}
	_, err = a.attestation.GetConsistencyProof(t.Context(), &kapselv1.GetConsistencyProofRequest{ToSize: proto.Int64(1 << 40)})
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_REQUEST")
}

func TestProofsThatCannotBeMade(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	_, head := r.sealedLog(a, 3)
	leaf := func(index int64) *kapselv1.GetInclusionProofRequest {
		return &kapselv1.GetInclusionProofRequest{Leaf: &kapselv1.GetInclusionProofRequest_LeafIndex{LeafIndex: index}}
	}
	prove := func(request *kapselv1.GetInclusionProofRequest) error {
		_, err := a.attestation.GetInclusionProof(t.Context(), request)
		return err
	}
	wantReason(t, prove(leaf(1<<40)), connect.CodeNotFound, "LEAF_NOT_FOUND")
	small := leaf(2)
	small.TreeSize = proto.Int64(2)
	wantReason(t, prove(small), connect.CodeInvalidArgument, "INVALID_REQUEST")
	unpublished := leaf(2)
	unpublished.TreeSize = proto.Int64(head.TreeSize + 1000)
	wantReason(t, prove(unpublished), connect.CodeNotFound, "TREE_HEAD_NOT_FOUND")
	other := leaf(0)
	other.LogId = "2"
	wantReason(t, prove(other), connect.CodeNotFound, "LOG_NOT_FOUND")
	wantReason(t, prove(&kapselv1.GetInclusionProofRequest{Leaf: &kapselv1.GetInclusionProofRequest_LeafHash{LeafHash: make([]byte, 32)}}),
		connect.CodeNotFound, "LEAF_NOT_FOUND")
	wantReason(t, prove(&kapselv1.GetInclusionProofRequest{Leaf: &kapselv1.GetInclusionProofRequest_LeafHash{LeafHash: make([]byte, 31)}}),
		connect.CodeInvalidArgument, "INVALID_REQUEST")
	wantReason(t, prove(&kapselv1.GetInclusionProofRequest{}), connect.CodeInvalidArgument, "INVALID_REQUEST")
	_, err := a.attestation.GetTreeHead(t.Context(), &kapselv1.GetTreeHeadRequest{TreeSize: proto.Int64(1 << 40)})
	wantReason(t, err, connect.CodeNotFound, "TREE_HEAD_NOT_FOUND")

	// Recorded, and not sealed: as far as the tables say.
	r.exec("update logs set next_index = next_index + 1 where log_id = 1")
	got := wantReason(t, prove(leaf(head.TreeSize)), connect.CodeFailedPrecondition, "NOT_SEALED")
	if detailOf[*errdetails.RetryInfo](t, got).GetRetryDelay().AsDuration() <= 0 {
		t.Error("no RetryInfo")
	}

	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	_, err = a.attestation.GetProofPackage(t.Context(), &kapselv1.GetProofPackageRequest{
		Subject: &kapselv1.GetProofPackageRequest_EventId{EventId: r.send(a, e, "matches nothing")},
	})
	wantReason(t, err, connect.CodeNotFound, "LEAF_NOT_FOUND")
}

func TestProofPackageVerifiesOffline(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	events, _ := r.sealedLog(a, 5)
	key := must(r.key.VerifierKey(testOrigin))(t)
	for _, eventID := range events {
		attempts := must(a.deliveries.ListAttempts(t.Context(), &kapselv1.ListAttemptsRequest{Parent: &kapselv1.ListAttemptsRequest_EventId{EventId: eventID}}))(t).Attempts
		for _, request := range []*kapselv1.GetProofPackageRequest{
			{Subject: &kapselv1.GetProofPackageRequest_EventId{EventId: eventID}},
			{Subject: &kapselv1.GetProofPackageRequest_DeliveryId{DeliveryId: attempts[0].DeliveryId}},
			{Subject: &kapselv1.GetProofPackageRequest_AttemptId{AttemptId: attempts[0].Id}},
		} {
			request.Wait = durationpb.New(10 * time.Second)
			packages := must(a.attestation.GetProofPackage(t.Context(), request))(t).Packages
			if len(packages) != 1 || packages[0].AttemptId != attempts[0].Id || packages[0].LeafIndex != attempts[0].LeafIndex {
				t.Fatalf("got %v", packages)
			}
			verifyPackage(t, packages[0].Json, key)
		}
	}
}

func TestWaitForASealIsBounded(t *testing.T) {
	r := newRig(t)
	s := &attestationService{api: &api{Deps: r.deps}}
	began := time.Now()
	_, err := s.awaitHead(t.Context(), 1<<40, &kapselv1.GetProofPackageRequest{Wait: durationpb.New(100 * time.Millisecond)})
	if got := refusalOf(err); got == nil || got.reason != kapselv1.ErrorReason_ERROR_REASON_NOT_SEALED {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took < 100*time.Millisecond || took > 5*time.Second {
		t.Errorf("waited %v", took)
	}
}

func TestTilesAndCheckpoint(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	_, head := r.sealedLog(a, 6)
	get := func(path string) (int, http.Header, []byte) {
		t.Helper()
		response := must(r.client.Get(r.url + path))(t)
		defer response.Body.Close()
		return response.StatusCode, response.Header, must(io.ReadAll(response.Body))(t)
	}
	status, header, note := get("/log/1/checkpoint")
	signed, _, err := checkpoint.Open(string(note), testOrigin, r.key.Public())
	if status != 200 || err != nil || signed.Size < head.TreeSize || header.Get("Content-Type") != "text/plain; charset=utf-8" || header.Get("Cache-Control") == "" {
		t.Fatalf("checkpoint: %d %v %v", status, err, header)
	}
	status, header, tile := get("/log/1/tile/0/000.p/3")
	if status != 200 || len(tile) != 3*32 || header.Get("Content-Type") != "application/octet-stream" || !strings.Contains(header.Get("Cache-Control"), "immutable") {
		t.Fatalf("tile: %d, %d bytes, %v", status, len(tile), header)
	}
	proof := must(a.attestation.GetInclusionProof(t.Context(), &kapselv1.GetInclusionProofRequest{Leaf: &kapselv1.GetInclusionProofRequest_LeafIndex{LeafIndex: 2}}))(t)
	if !bytes.Equal(tile[64:], proof.Proof.LeafHash) {
		t.Error("the tile holds another hash than the proof")
	}
	for _, path := range []string{
		"/log/2/checkpoint", "/log/1/tile/0/000", "/log/1/tile/0/000.p/255", "/log/1/tile/0/000.p/256", "/log/1/tile/0/000.p/0", "/log/1/tile/0/001",
		"/log/1/tile/1/000.p/1", "/log/1/tile/64/000", "/log/1/tile/-1/000", "/log/1/tile/entries/000", "/log/1/tile/0/0", "/log/1/tile/0/000.p/x",
		"/log/1/tile/0/x999/x999/x999/x999/x999/x999/999", "/log/1/tile/", "/log/1/", "/log/x/tile/0/000.p/3",
	} {
		if status, _, body := get(path); status != http.StatusNotFound {
			t.Errorf("%s: %d %q, want 404", path, status, body)
		}
	}
}

func verifyPackage(t *testing.T, document []byte, key string) {
	t.Helper()
	report, err := verify.Verify(document, verify.Options{TrustedKeys: []string{key}})
	if err != nil || !report.Full {
		t.Errorf("proof package: %v, %+v", err, report)
	}
	schema := must(jsonschema.NewCompiler().Compile("../docs/schema/kapsel-proof-v1.schema.json"))(t)
	if err := schema.Validate(must(jsonschema.UnmarshalJSON(bytes.NewReader(document)))(t)); err != nil {
		t.Errorf("by the published schema: %v", err)
	}
}
