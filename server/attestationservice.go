package server

import (
	"context"
	"errors"

	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// attestationService serves the log: heads and proofs to anyone, leaves to their tenant.
type attestationService struct {
	kapselv1connect.UnimplementedAttestationServiceHandler
	*api
	feed *headFeed
}

// checkLog refuses ids of logs that there are not. Empty: the log that new attempts go to, which is the only one.
func (s *attestationService) checkLog(logID string) error {
	if logID != "" && logID != logIDText(s.Reader.LogID()) {
		return refuse(kapselv1.ErrorReason_ERROR_REASON_LOG_NOT_FOUND, "there is no such log")
	}
	return nil
}

func (s *attestationService) GetLog(ctx context.Context, request *kapselv1.GetLogRequest) (*kapselv1.GetLogResponse, error) {
	if err := s.checkLog(request.LogId); err != nil {
		return nil, err
	}
	keys, err := s.logKeys(ctx)
	if err != nil {
		return nil, err
	}
	log := &kapselv1.Log{
		Id: logIDText(s.Reader.LogID()), Origin: s.Reader.Origin(), Url: s.PublicURL + "/log/" + logIDText(s.Reader.LogID()),
	}
	for _, key := range keys {
		entry := &kapselv1.LogKey{VerifierKey: key.text, CreateTime: timestamppb.New(key.created)}
		if key.retired != nil {
			entry.RetireTime = timestamppb.New(*key.retired)
		}
		if key.rotation != nil {
			entry.RotationLeaf, entry.RotationLeafIndex = key.rotation.Leaf, key.rotation.LeafIndex
		}
		log.Keys = append(log.Keys, entry)
	}
	return &kapselv1.GetLogResponse{Log: log}, nil
}

func (s *attestationService) GetTreeHead(ctx context.Context, request *kapselv1.GetTreeHeadRequest) (*kapselv1.GetTreeHeadResponse, error) {
	if err := s.checkLog(request.LogId); err != nil {
		return nil, err
	}
	head, err := s.headAt(ctx, request.TreeSize)
	if err != nil {
		return nil, err
	}
	treeHead, err := s.describeHead(ctx, head)
	if err != nil {
		return nil, err
	}
	return &kapselv1.GetTreeHeadResponse{TreeHead: treeHead}, nil
}

func (s *attestationService) GetInclusionProof(ctx context.Context, request *kapselv1.GetInclusionProofRequest) (*kapselv1.GetInclusionProofResponse, error) {
	var leafIndex int64
	switch leaf := request.Leaf.(type) {
	case *kapselv1.GetInclusionProofRequest_AttemptId:
		row, err := s.leafOfAttempt(ctx, leaf.AttemptId)
		if err != nil {
			return nil, err
		}
		leafIndex = row.LeafIndex
	case *kapselv1.GetInclusionProofRequest_LeafIndex:
		if err := s.checkLog(request.LogId); err != nil {
			return nil, err
		}
		leafIndex = leaf.LeafIndex
	case *kapselv1.GetInclusionProofRequest_LeafHash:
		if err := s.checkLog(request.LogId); err != nil {
			return nil, err
		}
		var err error
		if leafIndex, err = s.findLeaf(ctx, merkle.Hash(leaf.LeafHash)); err != nil {
			return nil, err
		}
	}
	head, err := s.headOver(ctx, leafIndex, request.TreeSize)
	if err != nil {
		return nil, err
	}
	path, err := s.Reader.InclusionProof(ctx, leafIndex, head.Size)
	if err != nil {
		return nil, err
	}
	hash, err := s.Reader.LeafHash(ctx, leafIndex, head.Size)
	if err != nil {
		return nil, err
	}
	treeHead, err := s.describeHead(ctx, head)
	if err != nil {
		return nil, err
	}
	return &kapselv1.GetInclusionProofResponse{
		Proof:    &kapselv1.InclusionProof{LeafIndex: leafIndex, LeafHash: hash[:], TreeSize: head.Size, AuditPath: hashes(path)},
		TreeHead: treeHead,
	}, nil
}

// findLeaf is the index of the leaf with a hash. Of a leaf that no head covers yet nothing is known.
func (s *attestationService) findLeaf(ctx context.Context, hash merkle.Hash) (int64, error) {
	index, err := s.Reader.FindLeaf(ctx, hash)
	switch {
	case errors.Is(err, tlog.ErrNotFound):
		return 0, refuse(kapselv1.ErrorReason_ERROR_REASON_LEAF_NOT_FOUND,
			"no signed head covers a leaf with this hash: if it was recorded just now, try again after the next head")
	case errors.Is(err, tlog.ErrIndexing):
		return 0, &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_OVERLOADED, retry: unavailableRetry,
			message: "leaves cannot be found by their hash yet, as the index is still being made: try again, or ask by leaf index"}
	}
	return index, err
}

func (s *attestationService) GetConsistencyProof(ctx context.Context, request *kapselv1.GetConsistencyProofRequest) (*kapselv1.GetConsistencyProofResponse, error) {
	if err := s.checkLog(request.LogId); err != nil {
		return nil, err
	}
	latest, err := s.headAt(ctx, nil)
	if err != nil {
		return nil, err
	}
	to := latest.Size
	if request.ToSize != nil {
		to = *request.ToSize
	}
	if to > latest.Size || request.FromSize > to {
		return nil, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "from_size",
			"the log has %d leaves that a head covers: no size may be larger", latest.Size)
	}
	proof, err := s.Reader.ConsistencyProof(ctx, request.FromSize, to)
	if err != nil {
		return nil, err
	}
	response := &kapselv1.GetConsistencyProofResponse{
		Proof: &kapselv1.ConsistencyProof{FromSize: request.FromSize, ToSize: to, Hashes: hashes(proof)},
	}
	head, err := s.Reader.HeadAt(ctx, to)
	switch {
	case errors.Is(err, tlog.ErrNotFound): // no head of this size was published
		return response, nil
	case err != nil:
		return nil, err
	}
	response.TreeHead, err = s.describeHead(ctx, head)
	return response, err
}

// headAt is the head of a size, or the latest one.
func (s *attestationService) headAt(ctx context.Context, size *int64) (tlog.Head, error) {
	var head tlog.Head
	var err error
	if size == nil {
		head, err = s.Reader.Head(ctx)
	} else {
		head, err = s.Reader.HeadAt(ctx, *size)
	}
	if errors.Is(err, tlog.ErrNotFound) {
		return head, refuse(kapselv1.ErrorReason_ERROR_REASON_TREE_HEAD_NOT_FOUND, "no such head was published")
	}
	return head, err
}

// headOver is a head that covers the leaf: the one of a size, or the latest.
func (s *attestationService) headOver(ctx context.Context, leafIndex int64, size *int64) (tlog.Head, error) {
	if size != nil && *size <= leafIndex {
		return tlog.Head{}, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "tree_size",
			"a tree of %d leaves does not hold leaf %d", *size, leafIndex)
	}
	head, err := s.headAt(ctx, size)
	if err != nil || leafIndex < head.Size {
		return head, err
	}
	log, err := s.DB.GetLog(ctx, s.DB.Public(), s.Reader.LogID())
	if err != nil {
		return tlog.Head{}, err
	}
	if leafIndex >= log.NextIndex {
		return tlog.Head{}, refuse(kapselv1.ErrorReason_ERROR_REASON_LEAF_NOT_FOUND, "the log has no leaf %d", leafIndex)
	}
	return tlog.Head{}, notSealed()
}

func notSealed() *refusal {
	r := refuse(kapselv1.ErrorReason_ERROR_REASON_NOT_SEALED, "recorded, but no signed head covers it yet: try again in a moment")
	r.retry = notSealedRetry
	return r
}

func noSuchLeaf() *refusal {
	return refuse(kapselv1.ErrorReason_ERROR_REASON_LEAF_NOT_FOUND, "nothing has been recorded yet")
}

func (s *attestationService) describeHead(ctx context.Context, head tlog.Head) (*kapselv1.TreeHead, error) {
	notes, err := s.Reader.SignedNotes(ctx, []tlog.Head{head})
	if err != nil {
		return nil, err
	}
	return s.treeHead(head, notes[0]), nil
}

// treeHead is a head with its note, cosignatures included.
func (s *attestationService) treeHead(head tlog.Head, note string) *kapselv1.TreeHead {
	return &kapselv1.TreeHead{
		LogId: logIDText(s.Reader.LogID()), TreeSize: head.Size, RootHash: head.Root[:], SignTime: timestamppb.New(head.SignedAt),
		Note: note, Cosignatures: cosignaturesIn(note, s.Reader.Origin()),
	}
}

func hashes(list []merkle.Hash) [][]byte {
	raw := make([][]byte, len(list))
	for i := range list {
		raw[i] = list[i][:]
	}
	return raw
}
