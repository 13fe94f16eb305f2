package server

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/tlog"
)

// sealTimeout bounds SealLog. A leader that died is replaced within seconds.
const sealTimeout = 30 * time.Second

// ListTreeHeads pages by tree size, the largest first.
func (s *attestationService) ListTreeHeads(ctx context.Context, request *kapselv1.ListTreeHeadsRequest) (*kapselv1.ListTreeHeadsResponse, error) {
	if err := s.checkLog(request.LogId); err != nil {
		return nil, err
	}
	page, err := readPage(request)
	if err != nil {
		return nil, err
	}
	before := page.number()
	if before < 0 {
		before = math.MaxInt64
	}
	list, err := s.Reader.List(ctx, before, int(page.size)+1)
	if err != nil {
		return nil, err
	}
	response := new(kapselv1.ListTreeHeadsResponse)
	if len(list) > int(page.size) {
		list = list[:page.size]
		response.NextPageToken = page.numberToken(list[page.size-1].Size)
	}
	notes, err := s.Reader.SignedNotes(ctx, list)
	if err != nil {
		return nil, err
	}
	for i, head := range list {
		response.TreeHeads = append(response.TreeHeads, s.treeHead(head, notes[i]))
	}
	return response, nil
}

// SealLog answers when a head covers all leaves that were recorded before the call.
func (s *attestationService) SealLog(ctx context.Context, request *kapselv1.SealLogRequest) (*kapselv1.SealLogResponse, error) {
	if err := s.checkLog(request.LogId); err != nil {
		return nil, err
	}
	operatorID := caller(ctx).TenantID
	err := s.DB.AsTenant(ctx, operatorID, func(tx pgx.Tx) error {
		return s.audit(ctx, tx, operatorID, logIDText(s.Reader.LogID()), "")
	})
	if err != nil {
		return nil, err
	}
	waitCtx, cancel := context.WithTimeout(ctx, sealTimeout)
	defer cancel()
	head, err := s.Seal(waitCtx)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_STORE_UNAVAILABLE, retry: unavailableRetry,
			message: "no node has sealed the log in time: look at the logs of the one that leads, and try again"}
	}
	if errors.Is(err, tlog.ErrRefused) { // only the operator gets here
		return nil, refuse(kapselv1.ErrorReason_ERROR_REASON_SEALING_REFUSED, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	treeHead, err := s.describeHead(ctx, head)
	if err != nil {
		return nil, err
	}
	return &kapselv1.SealLogResponse{TreeHead: treeHead}, nil
}
