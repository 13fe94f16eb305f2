package server

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/store"
)

// States of a destination, as its row has them.
const (
	stateEnabled  = "enabled"
	statePaused   = "paused"
	stateDisabled = "disabled"
)

// PauseDestination leaves a destination that the server disabled as it is: it is held back already, and why must stay
// visible until someone resumes it.
func (s *destinationService) PauseDestination(ctx context.Context, request *kapselv1.PauseDestinationRequest) (*kapselv1.PauseDestinationResponse, error) {
	response := new(kapselv1.PauseDestinationResponse)
	err := s.change(ctx, request.DestinationId, func(tx pgx.Tx, present store.Destination) (err error) {
		detail := "it was paused"
		if request.Reason != "" {
			detail += ": " + request.Reason
		}
		again := present.State == statePaused && (request.Reason == "" || present.StateDetail == detail)
		if present.State != stateDisabled && !again {
			present, err = s.DB.SetDestinationState(ctx, tx, store.SetDestinationStateParams{
				TenantID: present.TenantID, DestinationID: present.DestinationID, State: statePaused, StateDetail: detail,
			})
			if err != nil {
				return err
			}
			if err := s.audit(ctx, tx, present.TenantID, request.DestinationId, detail); err != nil {
				return err
			}
		}
		response.Destination, err = s.describeOne(ctx, tx, present)
		return err
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// ResumeDestination also closes the circuit breaker, of an enabled destination too: its owner wants it tried at once.
func (s *destinationService) ResumeDestination(ctx context.Context, request *kapselv1.ResumeDestinationRequest) (*kapselv1.ResumeDestinationResponse, error) {
	response := new(kapselv1.ResumeDestinationResponse)
	err := s.change(ctx, request.DestinationId, func(tx pgx.Tx, present store.Destination) (err error) {
		if present.State != stateEnabled {
			present, err = s.DB.SetDestinationState(ctx, tx, store.SetDestinationStateParams{
				TenantID: present.TenantID, DestinationID: present.DestinationID, State: stateEnabled,
			})
			if err != nil {
				return err
			}
		}
		if err := s.DB.ResetBreaker(ctx, tx, present.TenantID, present.DestinationID); err != nil {
			return err
		}
		if err := s.audit(ctx, tx, present.TenantID, request.DestinationId, ""); err != nil {
			return err
		}
		response.Destination, err = s.describeOne(ctx, tx, present)
		return err
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// tellBroken shows a destination with a security setting that cannot be honoured as disabled: this node sends nothing to
// it. That is not stored, since it ends by itself when the setting can be honoured again, such as with the right keyset.
func (s *destinationService) tellBroken(destinationID uuid.UUID, d *kapselv1.Destination) {
	known := s.Routes.Snapshot().Destination(destinationID)
	if known == nil || known.Broken == "" {
		return
	}
	d.State = kapselv1.DestinationState_DESTINATION_STATE_DISABLED
	d.DisableReason, d.StateDetail = kapselv1.DisableReason_DISABLE_REASON_CONFIGURATION, known.Broken
}
