package server

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/internal/signature"
	"github.com/kapsel-dev/kapsel/store"
)

// destinationService manages the URLs that events go to.
type destinationService struct {
	kapselv1connect.UnimplementedDestinationServiceHandler
	*api
}

func (s *destinationService) CreateDestination(ctx context.Context, request *kapselv1.CreateDestinationRequest) (*kapselv1.CreateDestinationResponse, error) {
	tenantID := caller(ctx).TenantID
	endpointID, err := id.Endpoint.Parse(request.Destination.EndpointId)
	if err != nil {
		return nil, noSuchEndpoint()
	}
	settings, err := s.readDestination(request.Destination, nil)
	if err != nil {
		return nil, err
	}
	if err := s.checkNames(ctx, request.Destination); err != nil {
		return nil, err
	}
	value, generated, err := settings.chooseSecret(request.Secret)
	if err != nil {
		return nil, err
	}
	row, err := settings.row()
	if err != nil {
		return nil, err
	}
	row.TenantID, row.DestinationID, row.EndpointID = tenantID, id.New(), endpointID

	response := &kapselv1.CreateDestinationResponse{Secret: generated}
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		if _, err := s.DB.GetEndpoint(ctx, tx, tenantID, endpointID); errors.Is(err, pgx.ErrNoRows) {
			return noSuchEndpoint()
		} else if err != nil {
			return err
		}
		quota, err := s.lockQuota(ctx, tx, tenantID)
		if err != nil {
			return err
		}
		if quota.MaxDestinations != nil && quota.Destinations >= int64(*quota.MaxDestinations) {
			return refuse(kapselv1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED, "the tenant may have %d destinations, and has them: delete one, or ask the operator", *quota.MaxDestinations)
		}
		created, err := s.DB.CreateDestination(ctx, tx, row)
		if store.IsReferenceError(err) { // the endpoint was deleted meanwhile
			return noSuchEndpoint()
		}
		if err != nil {
			return err
		}
		if err := s.addDestinationSecret(ctx, tx, tenantID, row.DestinationID, value); err != nil {
			return err
		}
		if err := s.storeOutbound(ctx, tx, created, settings, nil); err != nil {
			return err
		}
		if response.Destination, err = s.describeOne(ctx, tx, created); err != nil {
			return err
		}
		return s.audit(ctx, tx, tenantID, response.Destination.Id, "for "+response.Destination.EndpointId)
	})
	if err != nil {
		return nil, err
	}
	s.applyRoutes(ctx)
	return response, nil
}

func (s *destinationService) GetDestination(ctx context.Context, request *kapselv1.GetDestinationRequest) (*kapselv1.GetDestinationResponse, error) {
	tenantID := caller(ctx).TenantID
	destinationID, err := id.Destination.Parse(request.DestinationId)
	if err != nil {
		return nil, noSuchDestination()
	}
	response := new(kapselv1.GetDestinationResponse)
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		row, err := s.DB.GetDestination(ctx, tx, tenantID, destinationID)
		if errors.Is(err, pgx.ErrNoRows) {
			return noSuchDestination()
		}
		if err != nil {
			return err
		}
		response.Destination, err = s.describeOne(ctx, tx, row)
		return err
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func (s *destinationService) ListDestinations(ctx context.Context, request *kapselv1.ListDestinationsRequest) (*kapselv1.ListDestinationsResponse, error) {
	tenantID := caller(ctx).TenantID
	page, err := readPage(request)
	if err != nil {
		return nil, err
	}
	params := store.ListDestinationsParams{TenantID: tenantID, BeforeID: page.before, MaxRows: page.size + 1}
	if request.EndpointId != "" {
		endpointID, err := id.Endpoint.Parse(request.EndpointId)
		if err != nil {
			return new(kapselv1.ListDestinationsResponse), nil
		}
		params.EndpointID = &endpointID
	}
	response := new(kapselv1.ListDestinationsResponse)
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		rows, err := s.DB.ListDestinations(ctx, tx, params)
		if err != nil {
			return err
		}
		if len(rows) > int(page.size) {
			rows = rows[:page.size]
			response.NextPageToken = page.token(rows[len(rows)-1].DestinationID)
		}
		response.Destinations, err = s.describe(ctx, tx, rows)
		return err
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// describe makes the resources of rows, with their secrets' descriptions and public keys.
func (s *destinationService) describe(ctx context.Context, tx pgx.Tx, rows []store.Destination) ([]*kapselv1.Destination, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	ids := make([]uuid.UUID, len(rows))
	destinations := make([]*kapselv1.Destination, len(rows))
	byID := make(map[uuid.UUID]*kapselv1.Destination, len(rows))
	for i, row := range rows {
		var err error
		if destinations[i], err = describeDestination(row); err != nil {
			return nil, err
		}
		s.tellBroken(row.DestinationID, destinations[i])
		ids[i], byID[row.DestinationID] = row.DestinationID, destinations[i]
	}
	tenantID := rows[0].TenantID
	secrets, err := s.DB.DestinationSecrets(ctx, tx, tenantID, ids)
	if err != nil {
		return nil, err
	}
	for _, row := range secrets {
		d := byID[row.DestinationID]
		d.Secrets = append(d.Secrets, describeSecret(row.SecretID, row.CreatedAt, row.ExpiresAt))
		if d.Signing.Scheme != kapselv1.SigningScheme_SIGNING_SCHEME_V1A {
			continue
		}
		value, err := s.Keyring.Unseal(row.Ciphertext, secret.AssociatedData(tenantID, row.SecretID, route.DestinationSecretPurpose))
		if err != nil {
			continue // its destination is shown as disabled, and why; the others are shown as they are
		}
		public, err := signature.PublicKey(value.Reveal())
		if err != nil {
			continue
		}
		if public != "" {
			d.PublicKeys = append(d.PublicKeys, public)
		}
	}
	return destinations, nil
}

func (s *destinationService) describeOne(ctx context.Context, tx pgx.Tx, row store.Destination) (*kapselv1.Destination, error) {
	destinations, err := s.describe(ctx, tx, []store.Destination{row})
	if err != nil {
		return nil, err
	}
	return destinations[0], nil
}

func noSuchDestination() *refusal {
	return refuse(kapselv1.ErrorReason_ERROR_REASON_DESTINATION_NOT_FOUND, "there is no such destination")
}
