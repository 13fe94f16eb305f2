-- The route snapshot: read whole, by the engine, at start and after each change. Small tables, read in full.

-- name: RouteEndpoints :many
select e.tenant_id, e.endpoint_id, e.state, e.verification, e.payload_format, e.json_schema, e.max_body_bytes, e.deduplication,
  e.event_type_source, t.state as tenant_state
from endpoints e join tenants t using (tenant_id);

-- name: RouteEndpointSecrets :many
select tenant_id, endpoint_id, secret_id, ciphertext from endpoint_secrets
where expires_at is null or expires_at > now() order by created_at desc, secret_id desc;

-- name: RouteDestinations :many
select tenant_id, destination_id, endpoint_id, url, state, filter, signing, retry_policy, ordering, headers, forwarded_headers,
  connect_timeout_ms, timeout_ms, max_in_flight, rate_per_second, updated_at from destinations order by destination_id;

-- name: RouteRemovedDestinations :many
-- Those that were deleted a short while ago: what names them is not waiting for a snapshot that has them.
select destination_id from removed_destinations;

-- name: RouteDestinationSecrets :many
select tenant_id, destination_id, secret_id, ciphertext from destination_secrets
where expires_at is null or expires_at > now() order by created_at desc, secret_id desc;
