package server

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/tenant"
	"github.com/kapsel-dev/kapsel/store"
)

// maxLiveAPIKeys of a tenant that are neither revoked nor expired: far more than services have, and a bound.
const maxLiveAPIKeys = 1000

func (s *tenantService) CreateApiKey(ctx context.Context, request *kapselv1.CreateApiKeyRequest) (*kapselv1.CreateApiKeyResponse, error) {
	tenantID, err := tenantFor(ctx, request.TenantId)
	if err != nil {
		return nil, err
	}
	scopes, err := readScopes(tenantID, request.ApiKey.Scopes)
	if err != nil {
		return nil, err
	}
	key, keyID := tenant.NewKey(), id.New()
	response := &kapselv1.CreateApiKeyResponse{Secret: key.Text()}
	err = s.inTenant(ctx, request.TenantId, func(tx pgx.Tx, present store.Tenant) error {
		if present.State == tenantDeleting {
			return beingDeleted()
		}
		live, err := s.DB.CountLiveAPIKeys(ctx, tx, present.TenantID)
		if err != nil {
			return err
		}
		if live >= maxLiveAPIKeys {
			return refuse(kapselv1.ErrorReason_ERROR_REASON_QUOTA_EXCEEDED, "the tenant has %d API keys in force, which is all it may have: revoke one", live)
		}
		params := store.CreateAPIKeyParams{
			TenantID: present.TenantID, KeyID: keyID, DisplayName: request.ApiKey.DisplayName, Hint: key.Hint(), SecretHash: key.Hash(), Scopes: scopes,
		}
		if t := request.ApiKey.ExpireTime; t != nil {
			expires := clampTime(t)
			params.ExpiresAt = &expires
		}
		if err := s.DB.CreateAPIKey(ctx, tx, params); err != nil {
			return err
		}
		row, err := s.DB.GetAPIKey(ctx, tx, present.TenantID, keyID)
		if err != nil {
			return err
		}
		response.ApiKey = describeAPIKey(row)
		return s.audit(ctx, tx, present.TenantID, response.ApiKey.Id, "scopes "+strings.Join(scopes, ", "))
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func (s *tenantService) ListApiKeys(ctx context.Context, request *kapselv1.ListApiKeysRequest) (*kapselv1.ListApiKeysResponse, error) {
	page, err := readPage(request)
	if err != nil {
		return nil, err
	}
	response := new(kapselv1.ListApiKeysResponse)
	err = s.inTenant(ctx, request.TenantId, func(tx pgx.Tx, present store.Tenant) error {
		rows, err := s.DB.ListAPIKeys(ctx, tx, present.TenantID, page.before, page.size+1)
		if err != nil {
			return err
		}
		if len(rows) > int(page.size) {
			rows = rows[:page.size]
			response.NextPageToken = page.token(rows[len(rows)-1].KeyID)
		}
		for _, row := range rows {
			response.ApiKeys = append(response.ApiKeys, describeAPIKey(row))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return response, nil
}

func (s *tenantService) RevokeApiKey(ctx context.Context, request *kapselv1.RevokeApiKeyRequest) (*kapselv1.RevokeApiKeyResponse, error) {
	keyID, err := id.APIKey.Parse(request.ApiKeyId)
	if err != nil {
		return nil, noSuchAPIKey()
	}
	tenantID, err := s.tenantOfAPIKey(ctx, keyID)
	if err != nil {
		return nil, err
	}
	response := new(kapselv1.RevokeApiKeyResponse)
	err = s.DB.AsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		revoked, err := s.DB.RevokeAPIKey(ctx, tx, tenantID, keyID)
		if err != nil {
			return err
		}
		row, err := s.DB.GetAPIKey(ctx, tx, tenantID, keyID)
		if errors.Is(err, pgx.ErrNoRows) {
			return noSuchAPIKey()
		}
		if err != nil {
			return err
		}
		response.ApiKey = describeAPIKey(row)
		if revoked == 0 { // before
			return nil
		}
		return s.audit(ctx, tx, tenantID, response.ApiKey.Id, "")
	})
	if err != nil {
		return nil, err
	}
	s.Authenticator.Forget()
	return response, nil
}

// tenantOfAPIKey is where to look for a key: with the caller, but an operator need not say whose it is.
func (s *tenantService) tenantOfAPIKey(ctx context.Context, keyID uuid.UUID) (tenantID uuid.UUID, err error) {
	who := caller(ctx)
	if !who.IsOperator() {
		return who.TenantID, nil
	}
	err = s.DB.AsOperator(ctx, func(tx pgx.Tx) error {
		tenantID, err = s.DB.TenantOfAPIKey(ctx, tx, keyID)
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return uuid.Nil, noSuchAPIKey()
	}
	return tenantID, err
}

// apiScopes are the scopes as the contract and as rows have them.
var apiScopes = map[kapselv1.ApiKeyScope]tenant.Scope{
	kapselv1.ApiKeyScope_API_KEY_SCOPE_INGEST:   tenant.Ingest,
	kapselv1.ApiKeyScope_API_KEY_SCOPE_READ:     tenant.Read,
	kapselv1.ApiKeyScope_API_KEY_SCOPE_MANAGE:   tenant.Manage,
	kapselv1.ApiKeyScope_API_KEY_SCOPE_ADMIN:    tenant.Admin,
	kapselv1.ApiKeyScope_API_KEY_SCOPE_OPERATOR: tenant.Operator,
}

// readScopes keeps the operator's scope apart: its keys have that one alone, and a tenant's never do.
func readScopes(tenantID uuid.UUID, given []kapselv1.ApiKeyScope) (scopes []string, err error) {
	if tenantID == tenant.OperatorID {
		if len(given) != 1 || given[0] != kapselv1.ApiKeyScope_API_KEY_SCOPE_OPERATOR {
			return nil, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "api_key.scopes",
				"a key of the operator has the scope OPERATOR alone: name a tenant to make one of its keys")
		}
	} else if slices.Contains(given, kapselv1.ApiKeyScope_API_KEY_SCOPE_OPERATOR) {
		return nil, refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "api_key.scopes",
			"a tenant's key cannot have the scope OPERATOR: leave tenant_id out to make a key of the operator")
	}
	for _, scope := range given {
		scopes = append(scopes, string(apiScopes[scope]))
	}
	return scopes, nil
}

func describeAPIKey(row store.ApiKey) *kapselv1.ApiKey {
	key := &kapselv1.ApiKey{
		Id: id.APIKey.Text(row.KeyID), TenantId: id.Tenant.Text(row.TenantID), DisplayName: row.DisplayName, Hint: row.Hint,
		ExpireTime: timestamp(row.ExpiresAt), CreateTime: timestamppb.New(row.CreatedAt),
		LastUseTime: timestamp(row.LastUsedAt), RevokeTime: timestamp(row.RevokedAt),
	}
	for scope, stored := range apiScopes {
		if slices.Contains(row.Scopes, string(stored)) {
			key.Scopes = append(key.Scopes, scope)
		}
	}
	slices.Sort(key.Scopes)
	return key
}

func noSuchAPIKey() *refusal {
	return refuse(kapselv1.ErrorReason_ERROR_REASON_API_KEY_NOT_FOUND, "there is no such API key")
}
