-- Tenants and API keys. Those of one tenant are read and written in its name (row-level security), tenants as such by the
-- operator's role, and authentication is the engine's.

-- name: CreateTenant :exec
insert into tenants (tenant_id, display_name) values (@tenant_id, @display_name);

-- name: EnsureOperatorTenant :exec
-- What the operator's keys stand under. Called when one is made.
insert into tenants (tenant_id, display_name) values (kapsel_operator_tenant(), 'Operator') on conflict do nothing;

-- name: GetTenant :one
select * from tenants where tenant_id = @tenant_id;

-- name: LockTenant :one
-- First of each change, as for endpoints.
select * from tenants where tenant_id = @tenant_id and tenant_id <> kapsel_operator_tenant() for update;

-- name: ListTenants :many
-- By the operator; the newest first: ids are UUIDv7. Primary key.
select * from tenants where tenant_id < @before_id and tenant_id <> kapsel_operator_tenant()
order by tenant_id desc limit @max_rows::integer;

-- name: UpdateTenant :one
-- By the operator. updated_at is the etag, as for endpoints.
update tenants set display_name = @display_name, state = @state, ingest_per_second = @ingest_per_second,
  ingest_burst = @ingest_burst, ingest_per_day = @ingest_per_day, ingest_bytes_per_day = @ingest_bytes_per_day,
  max_body_bytes = @max_body_bytes, max_endpoints = @max_endpoints, max_destinations = @max_destinations,
  payload_retention_seconds = @payload_retention_seconds,
  updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
where tenant_id = @tenant_id
returning *;

-- name: RenameTenant :one
-- By the tenant itself, which may change nothing else.
update tenants set display_name = @display_name, updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
where tenant_id = @tenant_id
returning *;

-- name: CreateAPIKey :exec
insert into api_keys (tenant_id, key_id, display_name, hint, secret_hash, scopes, expires_at)
values (@tenant_id, @key_id, @display_name, @hint, @secret_hash, @scopes, @expires_at);

-- name: FindAPIKey :one
-- Authentication, by the engine: the tenant is not known yet. Index api_keys_secret_hash.
select k.tenant_id, k.key_id, k.secret_hash, k.scopes, k.expires_at, k.revoked_at, t.state as tenant_state
from api_keys k join tenants t using (tenant_id) where k.secret_hash = @secret_hash;

-- name: GetAPIKey :one
select * from api_keys where tenant_id = @tenant_id and key_id = @key_id;

-- name: ListAPIKeys :many
-- The newest first. Primary key.
select * from api_keys where tenant_id = @tenant_id and key_id < @before_id order by key_id desc limit @max_rows::integer;

-- name: CountLiveAPIKeys :one
select count(*) from api_keys where tenant_id = @tenant_id and revoked_at is null and (expires_at is null or expires_at > now());

-- name: TenantOfAPIKey :one
-- By the operator, who names a key without its tenant. Reads all keys: rare, and they are few.
select tenant_id from api_keys where key_id = @key_id;

-- name: RevokeAPIKey :execrows
update api_keys set revoked_at = now() where tenant_id = @tenant_id and key_id = @key_id and revoked_at is null;

-- name: TouchAPIKeys :exec
-- Called by tenant.Authenticator once a minute, for all keys that were used since. Primary key.
update api_keys k set last_used_at = u.used_at
from rows from (unnest(@tenant_ids::uuid[]), unnest(@key_ids::uuid[]), unnest(@used_at::timestamptz[])) as u(tenant_id, key_id, used_at)
where k.tenant_id = u.tenant_id and k.key_id = u.key_id and (k.last_used_at is null or k.last_used_at < u.used_at);
