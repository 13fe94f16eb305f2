package server

import (
	"context"

	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

func (s *endpointService) UpdateEndpoint(ctx context.Context, request *kapselv1.UpdateEndpointRequest) (*kapselv1.UpdateEndpointResponse, error) {
	response := new(kapselv1.UpdateEndpointResponse)
	err := s.change(ctx, request.EndpointId, func(tx pgx.Tx, present store.Endpoint) error {
		if err := checkEtag(request.Etag, etag(present.UpdatedAt)); err != nil {
			return err
		}
		before, err := describeEndpoint(present, s.PublicURL)
		if err != nil {
			return err
		}
		after := proto.CloneOf(before)
		if err := applyMask(request.UpdateMask, request.Endpoint, after); err != nil {
			return err
		}
		if err := checkRules(after, "endpoint"); err != nil {
			return err
		}
		settings, err := readEndpoint(after)
		if err != nil {
			return err
		}
		if err := s.changeVerification(ctx, tx, present, before, settings); err != nil {
			return err
		}
		row, err := settings.row()
		if err != nil {
			return err
		}
		updated, err := s.DB.UpdateEndpoint(ctx, tx, store.UpdateEndpointParams{
			TenantID: present.TenantID, EndpointID: present.EndpointID,
			DisplayName: row.DisplayName, State: row.State, Verification: row.Verification, PayloadFormat: row.PayloadFormat,
			JsonSchema: row.JsonSchema, MaxBodyBytes: row.MaxBodyBytes, Deduplication: row.Deduplication, EventTypeSource: row.EventTypeSource,
		})
		if err != nil {
			return err
		}
		if response.Endpoint, err = s.describeOne(ctx, tx, updated); err != nil {
			return err
		}
		return s.audit(ctx, tx, present.TenantID, response.Endpoint.Id, changed(request.UpdateMask.GetPaths()))
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// DeleteEndpoint takes the endpoint's destinations along if force says so, each as DeleteDestination does. Events stay.
func (s *endpointService) DeleteEndpoint(ctx context.Context, request *kapselv1.DeleteEndpointRequest) (*kapselv1.DeleteEndpointResponse, error) {
	err := s.change(ctx, request.EndpointId, func(tx pgx.Tx, present store.Endpoint) error {
		if err := checkEtag(request.Etag, etag(present.UpdatedAt)); err != nil {
			return err
		}
		// The endpoint's row is locked, so that no destination is added meanwhile.
		destinations, err := s.DB.DestinationsOfEndpoint(ctx, tx, present.TenantID, present.EndpointID)
		if err != nil {
			return err
		}
		if len(destinations) > 0 {
			if !request.Force {
				return refuse(kapselv1.ErrorReason_ERROR_REASON_ENDPOINT_IN_USE, "the endpoint still has %d destinations: delete them first, or set force", len(destinations))
			}
			if err := s.DB.DeleteDestinations(ctx, tx, present.TenantID, destinations); err != nil {
				return err
			}
		}
		for _, destinationID := range destinations {
			if err := s.audit(ctx, tx, present.TenantID, id.Destination.Text(destinationID), "deleted with its endpoint"); err != nil {
				return err
			}
		}
		if err := s.DB.DeleteEndpoint(ctx, tx, present.TenantID, present.EndpointID); err != nil {
			return err
		}
		return s.audit(ctx, tx, present.TenantID, request.EndpointId, "")
	})
	if err != nil {
		return nil, err
	}
	return new(kapselv1.DeleteEndpointResponse), nil
}

// change runs f on the caller's endpoint of that id, with its row locked.
func (s *endpointService) change(ctx context.Context, text string, f func(tx pgx.Tx, present store.Endpoint) error) error {
	return changeRow(ctx, s.api, id.Endpoint, text, noSuchEndpoint(), s.DB.LockEndpoint, f)
}
