-- The route snapshot: read whole, by the engine, at start and after each change. Small tables, read in full.

-- name: RouteEndpoints :many
select e.tenant_id, e.endpoint_id, e.state, e.verification, e.payload_format, e.json_schema, e.max_body_bytes, e.deduplication,
  e.event_type_source, t.state as tenant_state, t.ingest_per_second, t.ingest_burst, t.ingest_per_day, t.ingest_bytes_per_day,
  t.max_body_bytes as tenant_max_body_bytes
from endpoints e join tenants t using (tenant_id) where t.state <> 'deleting';

-- name: RouteEndpointSecrets :many
select tenant_id, endpoint_id, secret_id, ciphertext from endpoint_secrets
where expires_at is null or expires_at > now() order by created_at desc, secret_id desc;

-- name: RouteDestinations :many
select d.tenant_id, d.destination_id, d.endpoint_id, d.url, d.state, d.filter, d.signing, d.retry_policy, d.ordering, d.headers,
  d.forwarded_headers, d.connect_timeout_ms, d.timeout_ms, d.max_in_flight, d.rate_per_second, d.updated_at, d.client_tls,
  d.client_credentials, t.state as tenant_state, (l.session_id is not null)::boolean as listens, coalesce(l.endpoint_ids, '{}')::uuid[] as listened_endpoint_ids
from destinations d join tenants t using (tenant_id) left join listen_sessions l using (tenant_id, destination_id)
order by d.destination_id;

-- name: RouteRemovedDestinations :many
-- Those that were deleted a short while ago: what names them is not waiting for a snapshot that has them.
select destination_id from removed_destinations;

-- name: RouteDestinationSecrets :many
select tenant_id, destination_id, secret_id, ciphertext from destination_secrets
where expires_at is null or expires_at > now() order by created_at desc, secret_id desc;

-- name: RouteDestinationCredentials :many
select tenant_id, destination_id, kind, credential_id, ciphertext from destination_credentials;
