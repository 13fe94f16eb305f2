package server

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/store"
)

// maxPackages of one answer, as the contract says.
const maxPackages = 1000

// GetProofPackage proves all leaves of its subject under one head.
func (s *attestationService) GetProofPackage(ctx context.Context, request *kapselv1.GetProofPackageRequest) (*kapselv1.GetProofPackageResponse, error) {
	leaves, err := s.leavesOf(ctx, request)
	if err != nil {
		return nil, err
	}
	last := leaves[len(leaves)-1].LeafIndex
	head, err := s.awaitHead(ctx, last+1, request)
	if err != nil {
		return nil, err
	}
	packager, err := s.Reader.Packager(ctx, head)
	if err != nil {
		return nil, err
	}
	response := new(kapselv1.GetProofPackageResponse)
	for _, row := range leaves {
		if len(row.Leaf) == 0 {
			return nil, refuse(kapselv1.ErrorReason_ERROR_REASON_PAYLOAD_GONE, "the bytes of leaf %d were erased", row.LeafIndex)
		}
		document, err := packager.Package(ctx, row.LeafIndex, row.Leaf)
		if err != nil {
			return nil, err
		}
		response.Packages = append(response.Packages, &kapselv1.ProofPackage{
			AttemptId: id.Attempt.Text(row.AttemptID), LeafIndex: row.LeafIndex, Json: document,
		})
	}
	return response, nil
}

// awaitHead is the latest head if it covers size leaves, waiting for as long as the request wishes.
func (s *attestationService) awaitHead(ctx context.Context, size int64, request *kapselv1.GetProofPackageRequest) (tlog.Head, error) {
	head, err := s.Reader.Head(ctx)
	if err != nil && !errors.Is(err, tlog.ErrNotFound) {
		return tlog.Head{}, err
	}
	if err == nil && head.Size >= size {
		return head, nil
	}
	if request.Wait.AsDuration() == 0 {
		return tlog.Head{}, notSealed()
	}
	waitCtx, cancel := context.WithTimeout(ctx, request.Wait.AsDuration())
	defer cancel()
	head, err = s.Heads.Wait(waitCtx, size)
	if err != nil && ctx.Err() == nil {
		return tlog.Head{}, notSealed()
	}
	return head, err
}

// leavesOf are the leaves of the request's subject, in the order of the log, at least one.
func (s *attestationService) leavesOf(ctx context.Context, request *kapselv1.GetProofPackageRequest) (leaves []store.Attempt, err error) {
	if attemptID := request.GetAttemptId(); attemptID != "" {
		row, err := s.leafOfAttempt(ctx, attemptID)
		return []store.Attempt{row}, err
	}
	tenantID := caller(ctx).TenantID
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) (err error) {
		if text := request.GetDeliveryId(); text != "" {
			leaves, err = s.leavesOfDelivery(ctx, tx, tenantID, text)
		} else {
			leaves, err = s.leavesOfEvent(ctx, tx, tenantID, request.GetEventId())
		}
		return err
	})
	return leaves, err
}

func (s *attestationService) leavesOfDelivery(ctx context.Context, tx pgx.Tx, tenantID uuid.UUID, text string) ([]store.Attempt, error) {
	deliveryID, err := id.Delivery.Parse(text)
	if err != nil {
		return nil, noSuchDelivery()
	}
	leaves, err := s.DB.LeavesOfDelivery(ctx, tx, store.LeavesOfDeliveryParams{
		TenantID: tenantID, DeliveryID: deliveryID, Since: since(deliveryID), MaxRows: maxPackages,
	})
	if err != nil || len(leaves) > 0 {
		return leaves, err
	}
	if _, err := s.readDelivery(ctx, tx, tenantID, deliveryID); err != nil {
		return nil, err
	}
	return nil, noSuchLeaf()
}

func (s *attestationService) leavesOfEvent(ctx context.Context, tx pgx.Tx, tenantID uuid.UUID, text string) ([]store.Attempt, error) {
	eventID, err := id.Event.Parse(text)
	if err != nil {
		return nil, noSuchEvent()
	}
	leaves, err := s.DB.LeavesOfEvent(ctx, tx, store.LeavesOfEventParams{
		TenantID: tenantID, EventID: eventID, Since: since(eventID), MaxRows: maxPackages,
	})
	if err != nil || len(leaves) > 0 {
		return leaves, err
	}
	if _, err := s.DB.GetEvent(ctx, tx, tenantID, eventID); errors.Is(err, pgx.ErrNoRows) {
		return nil, noSuchEvent()
	} else if err != nil {
		return nil, err
	}
	return nil, noSuchLeaf()
}

// leafOfAttempt is the leaf of an attempt, or of a dead letter, of the calling tenant.
func (s *attestationService) leafOfAttempt(ctx context.Context, text string) (row store.Attempt, err error) {
	principal, err := reader(ctx)
	if err != nil {
		return row, err
	}
	attemptID, err := id.Attempt.Parse(text)
	if err != nil {
		return row, noSuchAttempt()
	}
	err = s.DB.AsTenant(ctx, principal.TenantID, func(tx pgx.Tx) (err error) {
		row, err = s.DB.GetAttempt(ctx, tx, principal.TenantID, attemptID, since(attemptID))
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return row, noSuchAttempt()
	}
	return row, err
}
