package server

import (
	"context"
	"errors"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

// endpointService manages the addresses that sources post to.
type endpointService struct {
	kapselv1connect.UnimplementedEndpointServiceHandler
	*api
}

func (s *endpointService) CreateEndpoint(ctx context.Context, request *kapselv1.CreateEndpointRequest) (*kapselv1.CreateEndpointResponse, error) {
	tenantID := caller(ctx).TenantID
	settings, err := readEndpoint(request.Endpoint)
	if err != nil {
		return nil, err
	}
	secrets, generated, err := settings.chooseSecrets(request.Secrets)
	if err != nil {
		return nil, err
	}
	row, err := settings.row()
	if err != nil {
		return nil, err
	}
	row.TenantID, row.EndpointID = tenantID, id.New()

	var endpoint *kapselv1.Endpoint
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		quota, err := s.lockQuota(ctx, tx, tenantID)
		if err != nil {
			return err
		}
		if quota.MaxEndpoints != nil && quota.Endpoints >= int64(*quota.MaxEndpoints) {
			return refuse(kapselv1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED, "the tenant may have %d endpoints, and has them: delete one, or ask the operator", *quota.MaxEndpoints)
		}
		created, err := s.DB.CreateEndpoint(ctx, tx, row)
		if err != nil {
			return err
		}
		for _, value := range secrets {
			if err := s.addEndpointSecret(ctx, tx, tenantID, row.EndpointID, value); err != nil {
				return err
			}
		}
		if endpoint, err = s.describeOne(ctx, tx, created); err != nil {
			return err
		}
		return s.audit(ctx, tx, tenantID, endpoint.Id, "")
	})
	if err != nil {
		return nil, err
	}
	s.applyRoutes(ctx)
	return &kapselv1.CreateEndpointResponse{Endpoint: endpoint, Secret: generated}, nil
}

func (s *endpointService) GetEndpoint(ctx context.Context, request *kapselv1.GetEndpointRequest) (*kapselv1.GetEndpointResponse, error) {
	tenantID := caller(ctx).TenantID
	endpointID, err := id.Endpoint.Parse(request.EndpointId)
	if err != nil {
		return nil, noSuchEndpoint()
	}
	response := new(kapselv1.GetEndpointResponse)
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		row, err := s.DB.GetEndpoint(ctx, tx, tenantID, endpointID)
		if errors.Is(err, pgx.ErrNoRows) {
			return noSuchEndpoint()
		}
		if err != nil {
			return err
		}
		response.Endpoint, err = s.describeOne(ctx, tx, row)
		return err
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func (s *endpointService) ListEndpoints(ctx context.Context, request *kapselv1.ListEndpointsRequest) (*kapselv1.ListEndpointsResponse, error) {
	tenantID := caller(ctx).TenantID
	page, err := readPage(request)
	if err != nil {
		return nil, err
	}
	response := new(kapselv1.ListEndpointsResponse)
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		rows, err := s.DB.ListEndpoints(ctx, tx, tenantID, page.before, page.size+1)
		if err != nil {
			return err
		}
		if len(rows) > int(page.size) {
			rows = rows[:page.size]
			response.NextPageToken = page.token(rows[len(rows)-1].EndpointID)
		}
		response.Endpoints, err = s.describe(ctx, tx, rows)
		return err
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// describe makes the resources of rows, with their secrets' descriptions.
func (s *endpointService) describe(ctx context.Context, tx pgx.Tx, rows []store.Endpoint) ([]*kapselv1.Endpoint, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	ids := make([]uuid.UUID, len(rows))
	for i, row := range rows {
		ids[i] = row.EndpointID
	}
	secretRows, err := s.DB.EndpointSecrets(ctx, tx, rows[0].TenantID, ids)
	if err != nil {
		return nil, err
	}
	secrets := make(map[uuid.UUID][]*kapselv1.Secret)
	for _, row := range secretRows {
		secrets[row.EndpointID] = append(secrets[row.EndpointID], describeSecret(row.SecretID, row.CreatedAt, row.ExpiresAt))
	}
	endpoints := make([]*kapselv1.Endpoint, len(rows))
	for i, row := range rows {
		if endpoints[i], err = describeEndpoint(row, s.PublicURL); err != nil {
			return nil, err
		}
		endpoints[i].Secrets = secrets[row.EndpointID]
	}
	return endpoints, nil
}

func (s *endpointService) describeOne(ctx context.Context, tx pgx.Tx, row store.Endpoint) (*kapselv1.Endpoint, error) {
	endpoints, err := s.describe(ctx, tx, []store.Endpoint{row})
	if err != nil {
		return nil, err
	}
	return endpoints[0], nil
}

// applyRoutes has a change in force on this node before its caller's next request. If that fails, the notice that came
// with the change does it a little later, as on the other nodes.
func (a *api) applyRoutes(ctx context.Context) {
	if err := a.Routes.Refresh(ctx); err != nil {
		a.Logger.WarnContext(ctx, "routes not refreshed after a change", "error", err)
		a.Routes.Poke()
	}
}
