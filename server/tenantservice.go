package server

import (
	"context"
	"errors"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/tenant"
	"github.com/kapsel-dev/kapsel/store"
)

// tenantService manages tenants, their API keys and limits, and shows their audit logs.
type tenantService struct {
	kapselv1connect.UnimplementedTenantServiceHandler
	*api
}

// States of a tenant, as its row has them.
const (
	tenantActive    = "active"
	tenantSuspended = "suspended"
	tenantDeleting  = "deleting"
)

func (s *tenantService) CreateTenant(ctx context.Context, request *kapselv1.CreateTenantRequest) (*kapselv1.CreateTenantResponse, error) {
	tenantID := id.New()
	response := new(kapselv1.CreateTenantResponse)
	err := s.DB.AsOperator(ctx, func(tx pgx.Tx) error {
		if err := s.DB.CreateTenant(ctx, tx, tenantID, request.Tenant.DisplayName); err != nil {
			return err
		}
		row, err := s.DB.UpdateTenant(ctx, tx, tenantRow(tenantID, request.Tenant))
		if err != nil {
			return err
		}
		response.Tenant = describeTenant(row)
		return s.audit(ctx, tx, tenantID, response.Tenant.Id, "")
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func (s *tenantService) GetTenant(ctx context.Context, request *kapselv1.GetTenantRequest) (*kapselv1.GetTenantResponse, error) {
	if request.TenantId == "" && caller(ctx).IsOperator() {
		return nil, nameATenant()
	}
	response := new(kapselv1.GetTenantResponse)
	err := s.inTenant(ctx, request.TenantId, func(_ pgx.Tx, present store.Tenant) error {
		response.Tenant = describeTenant(present)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func (s *tenantService) ListTenants(ctx context.Context, request *kapselv1.ListTenantsRequest) (*kapselv1.ListTenantsResponse, error) {
	page, err := readPage(request)
	if err != nil {
		return nil, err
	}
	response := new(kapselv1.ListTenantsResponse)
	err = s.DB.AsOperator(ctx, func(tx pgx.Tx) error {
		rows, err := s.DB.ListTenants(ctx, tx, page.before, page.size+1)
		if err != nil {
			return err
		}
		if len(rows) > int(page.size) {
			rows = rows[:page.size]
			response.NextPageToken = page.token(rows[len(rows)-1].TenantID)
		}
		for _, row := range rows {
			response.Tenants = append(response.Tenants, describeTenant(row))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

// UpdateTenant lets a tenant's own administrator rename it, and an operator change all.
func (s *tenantService) UpdateTenant(ctx context.Context, request *kapselv1.UpdateTenantRequest) (*kapselv1.UpdateTenantResponse, error) {
	tenantID, err := tenantFor(ctx, request.TenantId)
	if err != nil {
		return nil, err
	}
	if tenantID == tenant.OperatorID {
		return nil, nameATenant()
	}
	begin := s.DB.AsOperator
	if !caller(ctx).IsOperator() {
		for _, path := range request.UpdateMask.GetPaths() {
			if path != "display_name" {
				return nil, authError(tenant.ErrScope, tenant.Operator)
			}
		}
		begin = func(ctx context.Context, f func(pgx.Tx) error) error { return s.DB.AsTenant(ctx, tenantID, f) }
	}
	response := new(kapselv1.UpdateTenantResponse)
	err = begin(ctx, func(tx pgx.Tx) error {
		present, err := s.lockTenant(ctx, tx, tenantID, request.Etag)
		if err != nil {
			return err
		}
		after := describeTenant(present)
		if err := applyMask(request.UpdateMask, request.Tenant, after); err != nil {
			return err
		}
		updated, err := s.writeTenant(ctx, tx, tenantID, after)
		if err != nil {
			return err
		}
		response.Tenant = describeTenant(updated)
		return s.audit(ctx, tx, tenantID, response.Tenant.Id, changed(request.UpdateMask.GetPaths()))
	})
	if err != nil {
		return nil, err
	}
	s.Authenticator.Forget()
	s.applyRoutes(ctx)
	return response, nil
}

// DeleteTenant ends a tenant's keys, intake and deliveries at once. The rest is done step by step: see tenant.Deletions and
// ledger.Eraser.
func (s *tenantService) DeleteTenant(ctx context.Context, request *kapselv1.DeleteTenantRequest) (*kapselv1.DeleteTenantResponse, error) {
	tenantID, err := tenantFor(ctx, request.TenantId)
	if err != nil {
		return nil, err
	}
	response := new(kapselv1.DeleteTenantResponse)
	err = s.DB.AsOperator(ctx, func(tx pgx.Tx) error {
		present, err := s.DB.LockTenant(ctx, tx, tenantID)
		if errors.Is(err, pgx.ErrNoRows) {
			return noSuchTenant()
		}
		if err != nil {
			return err
		}
		if err := checkEtag(request.Etag, etag(present.UpdatedAt)); err != nil {
			return err
		}
		if present.State == tenantDeleting { // begun before
			response.Tenant = describeTenant(present)
			return nil
		}
		if present, err = s.DB.BeginTenantDeletion(ctx, tx, tenantID); err != nil {
			return err
		}
		if err := s.DB.RevokeAPIKeysOfTenant(ctx, tx, tenantID); err != nil {
			return err
		}
		if err := s.DB.RequestTenantErasure(ctx, tx, tenantID); err != nil {
			return err
		}
		response.Tenant = describeTenant(present)
		return s.audit(ctx, tx, tenantID, request.TenantId, "")
	})
	if err != nil {
		return nil, err
	}
	s.Authenticator.Forget()
	s.applyRoutes(ctx)
	return response, nil
}

// writeTenant stores a tenant as it is to be, with the rights of the caller.
func (s *tenantService) writeTenant(ctx context.Context, tx pgx.Tx, tenantID uuid.UUID, t *kapselv1.Tenant) (store.Tenant, error) {
	if caller(ctx).IsOperator() {
		return s.DB.UpdateTenant(ctx, tx, tenantRow(tenantID, t))
	}
	return s.DB.RenameTenant(ctx, tx, t.DisplayName, tenantID)
}

// lockTenant holds the row of a tenant that is there, is not being deleted, and has the etag.
func (s *tenantService) lockTenant(ctx context.Context, tx pgx.Tx, tenantID uuid.UUID, given string) (store.Tenant, error) {
	present, err := s.DB.LockTenant(ctx, tx, tenantID)
	if errors.Is(err, pgx.ErrNoRows) {
		return present, noSuchTenant()
	}
	if err != nil {
		return present, err
	}
	if present.State == tenantDeleting {
		return present, beingDeleted()
	}
	return present, checkEtag(given, etag(present.UpdatedAt))
}

// inTenant runs f in the name of the tenant that a request means, which exists.
func (s *tenantService) inTenant(ctx context.Context, text string, f func(tx pgx.Tx, present store.Tenant) error) error {
	tenantID, err := tenantFor(ctx, text)
	if err != nil {
		return err
	}
	return s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		present, err := s.DB.GetTenant(ctx, tx, tenantID)
		if errors.Is(err, pgx.ErrNoRows) {
			return noSuchTenant()
		}
		if err != nil {
			return err
		}
		return f(tx, present)
	})
}

// tenantFor is the tenant that a request means by a tenant_id. Another one than the caller's own is the operator's to name,
// whose own has keys and an audit log, and nothing else.
func tenantFor(ctx context.Context, text string) (uuid.UUID, error) {
	who := caller(ctx)
	if text == "" {
		return who.TenantID, nil
	}
	tenantID, err := id.Tenant.Parse(text)
	if err != nil || tenantID == tenant.OperatorID || !who.IsOperator() && tenantID != who.TenantID {
		return uuid.Nil, noSuchTenant()
	}
	return tenantID, nil
}

func describeTenant(row store.Tenant) *kapselv1.Tenant {
	state := kapselv1.TenantState_TENANT_STATE_ACTIVE
	switch row.State {
	case tenantSuspended:
		state = kapselv1.TenantState_TENANT_STATE_SUSPENDED
	case tenantDeleting:
		state = kapselv1.TenantState_TENANT_STATE_DELETING
	}
	return &kapselv1.Tenant{
		Id: id.Tenant.Text(row.TenantID), DisplayName: row.DisplayName, State: state, Limits: describeLimits(row),
		CreateTime: timestamppb.New(row.CreatedAt), UpdateTime: timestamppb.New(row.UpdatedAt), Etag: etag(row.UpdatedAt),
		DeleteTime: timestamp(row.DeletedAt), EraseTime: timestamp(row.ErasedAt),
	}
}

// tenantRow is what a tenant's row is to hold. DELETING comes from DeleteTenant alone.
func tenantRow(tenantID uuid.UUID, t *kapselv1.Tenant) store.UpdateTenantParams {
	row := store.UpdateTenantParams{TenantID: tenantID, DisplayName: t.DisplayName, State: tenantActive}
	if t.State == kapselv1.TenantState_TENANT_STATE_SUSPENDED {
		row.State = tenantSuspended
	}
	setLimits(&row, t.GetLimits())
	return row
}

// changed is what an audit log says of an update.
func changed(paths []string) string { return "changed " + strings.Join(paths, ", ") }

func noSuchTenant() *refusal {
	return refuse(kapselv1.ErrorReason_ERROR_REASON_TENANT_NOT_FOUND, "there is no such tenant")
}

func nameATenant() *refusal {
	return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "tenant_id", "a key of the operator stands for no tenant: name one")
}

func beingDeleted() *refusal {
	return refuse(kapselv1.ErrorReason_ERROR_REASON_TENANT_DELETING, "the tenant is being deleted, which cannot be undone: create another one")
}
