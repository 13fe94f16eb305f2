-- Configuration as the API reads and writes it, in the name of a tenant (row-level security).

-- name: CreateTenant :exec
insert into tenants (tenant_id, display_name) values (@tenant_id, @display_name);

-- name: CreateAPIKey :exec
insert into api_keys (tenant_id, key_id, display_name, hint, secret_hash, scopes, expires_at)
values (@tenant_id, @key_id, @display_name, @hint, @secret_hash, @scopes, @expires_at);

-- name: FindAPIKey :one
-- Authentication, by the engine: the tenant is not known yet. Index api_keys_secret_hash.
select k.tenant_id, k.key_id, k.scopes, k.expires_at, k.revoked_at, t.state as tenant_state
from api_keys k join tenants t using (tenant_id) where k.secret_hash = @secret_hash;

-- name: CreateEndpoint :one
insert into endpoints (tenant_id, endpoint_id, display_name, state, verification, payload_format, json_schema,
  max_body_bytes, deduplication, event_type_source)
values (@tenant_id, @endpoint_id, @display_name, @state, @verification, @payload_format, @json_schema, @max_body_bytes,
  @deduplication, @event_type_source)
returning *;

-- name: CreateEndpointSecret :exec
insert into endpoint_secrets (tenant_id, endpoint_id, secret_id, ciphertext, expires_at)
values (@tenant_id, @endpoint_id, @secret_id, @ciphertext, @expires_at);

-- name: GetEndpoint :one
select * from endpoints where tenant_id = @tenant_id and endpoint_id = @endpoint_id;

-- name: ListEndpoints :many
-- The newest first: ids are UUIDv7. Primary key.
select * from endpoints
where tenant_id = @tenant_id and endpoint_id < @before_id order by endpoint_id desc limit @max_rows::integer;

-- name: EndpointSecrets :many
-- Those that are valid now, without their values; the newest first.
select endpoint_id, secret_id, created_at, expires_at from endpoint_secrets
where tenant_id = @tenant_id and endpoint_id = any(@endpoint_ids::uuid[]) and (expires_at is null or expires_at > now())
order by created_at desc, secret_id desc;

-- name: CreateDestination :one
insert into destinations (tenant_id, destination_id, endpoint_id, display_name, url, state, filter, signing, retry_policy,
  ordering, headers, forwarded_headers, connect_timeout_ms, timeout_ms, max_in_flight, rate_per_second)
values (@tenant_id, @destination_id, @endpoint_id, @display_name, @url, @state, @filter, @signing, @retry_policy,
  @ordering, @headers, @forwarded_headers, @connect_timeout_ms, @timeout_ms, @max_in_flight, @rate_per_second)
returning *;

-- name: CreateDestinationSecret :exec
insert into destination_secrets (tenant_id, destination_id, secret_id, ciphertext, expires_at)
values (@tenant_id, @destination_id, @secret_id, @ciphertext, @expires_at);

-- name: GetDestination :one
select * from destinations where tenant_id = @tenant_id and destination_id = @destination_id;

-- name: ListDestinations :many
-- The newest first. endpoint_id nil: of all endpoints. Primary key.
select * from destinations
where tenant_id = @tenant_id and destination_id < @before_id
  and (sqlc.narg(endpoint_id)::uuid is null or endpoint_id = sqlc.narg(endpoint_id)::uuid)
order by destination_id desc limit @max_rows::integer;

-- name: DestinationSecrets :many
-- Those that sign now; the newest first.
select destination_id, secret_id, ciphertext, created_at, expires_at from destination_secrets
where tenant_id = @tenant_id and destination_id = any(@destination_ids::uuid[]) and (expires_at is null or expires_at > now())
order by created_at desc, secret_id desc;

-- name: TenantQuota :one
-- What a tenant may have, and has. Asked before each creation; two at the same moment may both pass, and exceed it by one.
select t.max_endpoints, t.max_destinations,
  (select count(*) from endpoints e where e.tenant_id = t.tenant_id) as endpoints,
  (select count(*) from destinations d where d.tenant_id = t.tenant_id) as destinations
from tenants t where t.tenant_id = @tenant_id;
