package server

import (
	"context"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

func (s *destinationService) UpdateDestination(ctx context.Context, request *kapselv1.UpdateDestinationRequest) (*kapselv1.UpdateDestinationResponse, error) {
	response := new(kapselv1.UpdateDestinationResponse)
	if err := s.checkNames(ctx, request.Destination); err != nil {
		return nil, err
	}
	err := s.change(ctx, request.DestinationId, func(tx pgx.Tx, present store.Destination) (err error) {
		if err := checkEtag(request.Etag, etag(present.UpdatedAt)); err != nil {
			return err
		}
		before, err := describeDestination(present)
		if err != nil {
			return err
		}
		after := proto.CloneOf(before)
		if err := applyMask(request.UpdateMask, request.Destination, after); err != nil {
			return err
		}
		if err := checkRules(after, "destination"); err != nil {
			return err
		}
		settings, err := s.readDestination(after, before)
		if err != nil {
			return err
		}
		if err := s.changeScheme(ctx, tx, present, before, settings); err != nil {
			return err
		}
		if err := s.storeOutbound(ctx, tx, present, settings, present.Headers); err != nil {
			return err
		}
		row, err := settings.row()
		if err != nil {
			return err
		}
		updated, err := s.DB.UpdateDestination(ctx, tx, store.UpdateDestinationParams{
			TenantID: present.TenantID, DestinationID: present.DestinationID,
			DisplayName: row.DisplayName, URL: row.URL, Filter: row.Filter, Signing: row.Signing, RetryPolicy: row.RetryPolicy,
			Ordering: row.Ordering, Headers: row.Headers, ForwardedHeaders: row.ForwardedHeaders,
			ConnectTimeoutMs: row.ConnectTimeoutMs, TimeoutMs: row.TimeoutMs, MaxInFlight: row.MaxInFlight, RatePerSecond: row.RatePerSecond,
			ClientTls: row.ClientTls, ClientCredentials: row.ClientCredentials,
		})
		if err != nil {
			return err
		}
		if response.Destination, err = s.describeOne(ctx, tx, updated); err != nil {
			return err
		}
		return s.audit(ctx, tx, present.TenantID, response.Destination.Id, changed(request.UpdateMask.GetPaths()))
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// DeleteDestination removes the row, and leaves the duty to end what is still to be delivered: nothing may be sent any more
// as soon as a node's snapshot is without the destination, and each of its deliveries becomes a dead letter when it is due.
func (s *destinationService) DeleteDestination(ctx context.Context, request *kapselv1.DeleteDestinationRequest) (*kapselv1.DeleteDestinationResponse, error) {
	err := s.change(ctx, request.DestinationId, func(tx pgx.Tx, present store.Destination) error {
		if err := checkEtag(request.Etag, etag(present.UpdatedAt)); err != nil {
			return err
		}
		if err := s.DB.DeleteDestinations(ctx, tx, present.TenantID, []uuid.UUID{present.DestinationID}); err != nil {
			return err
		}
		return s.audit(ctx, tx, present.TenantID, request.DestinationId, "")
	})
	if err != nil {
		return nil, err
	}
	return new(kapselv1.DeleteDestinationResponse), nil
}

// change runs f on the caller's destination of that id, with its row locked.
func (s *destinationService) change(ctx context.Context, text string, f func(tx pgx.Tx, present store.Destination) error) error {
	return changeRow(ctx, s.api, id.Destination, text, noSuchDestination(), s.DB.LockDestination, f)
}
