-- Configuration as the API reads and writes it, in the name of a tenant (row-level security).

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

-- name: LockEndpoint :one
-- First of each change, so that changes of one endpoint take turns and an etag is compared with what is changed.
select * from endpoints where tenant_id = @tenant_id and endpoint_id = @endpoint_id for update;

-- name: UpdateEndpoint :one
-- updated_at is the etag: it grows with each change, also within a microsecond and when the clock is set back.
update endpoints set display_name = @display_name, state = @state, verification = @verification,
  payload_format = @payload_format, json_schema = @json_schema, max_body_bytes = @max_body_bytes,
  deduplication = @deduplication, event_type_source = @event_type_source,
  updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
where tenant_id = @tenant_id and endpoint_id = @endpoint_id
returning *;

-- name: TouchEndpoint :one
-- A change of its secrets is a change of the endpoint.
update endpoints set updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
where tenant_id = @tenant_id and endpoint_id = @endpoint_id
returning *;

-- name: DeleteEndpoint :exec
-- Its secrets go with it (on delete cascade).
delete from endpoints where tenant_id = @tenant_id and endpoint_id = @endpoint_id;

-- name: EndpointSecretValues :many
-- Those that are valid now; the newest first.
select secret_id, ciphertext from endpoint_secrets
where tenant_id = @tenant_id and endpoint_id = @endpoint_id and (expires_at is null or expires_at > now())
order by created_at desc, secret_id desc;

-- name: EndEndpointSecrets :exec
-- Has the present secrets end after an overlap; one that ends sooner already still does.
update endpoint_secrets
set expires_at = least(expires_at, now() + make_interval(secs => @overlap_seconds::float8))
where tenant_id = @tenant_id and endpoint_id = @endpoint_id;

-- name: RemoveEndedEndpointSecrets :exec
delete from endpoint_secrets where tenant_id = @tenant_id and endpoint_id = @endpoint_id and expires_at <= now();

-- name: CreateDestination :one
insert into destinations (tenant_id, destination_id, endpoint_id, display_name, url, state, filter, signing, retry_policy,
  ordering, headers, forwarded_headers, connect_timeout_ms, timeout_ms, max_in_flight, rate_per_second, client_tls,
  client_credentials)
values (@tenant_id, @destination_id, @endpoint_id, @display_name, @url, @state, @filter, @signing, @retry_policy,
  @ordering, @headers, @forwarded_headers, @connect_timeout_ms, @timeout_ms, @max_in_flight, @rate_per_second, @client_tls,
  @client_credentials)
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

-- name: LockDestination :one
-- First of each change, as for endpoints.
select * from destinations where tenant_id = @tenant_id and destination_id = @destination_id for update;

-- name: DestinationsOfEndpoint :many
-- Index destinations_endpoint. Locked, since they are to be deleted.
select destination_id from destinations where tenant_id = @tenant_id and endpoint_id = @endpoint_id
order by destination_id for update;

-- name: UpdateDestination :one
update destinations set display_name = @display_name, url = @url, filter = @filter, signing = @signing,
  retry_policy = @retry_policy, ordering = @ordering, headers = @headers, forwarded_headers = @forwarded_headers,
  connect_timeout_ms = @connect_timeout_ms, timeout_ms = @timeout_ms, max_in_flight = @max_in_flight,
  rate_per_second = @rate_per_second, client_tls = @client_tls, client_credentials = @client_credentials,
  updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
where tenant_id = @tenant_id and destination_id = @destination_id
returning *;

-- name: SetDestinationState :one
-- Pause and resume. Neither leaves a reason of the server's own.
update destinations set state = @state, disable_reason = 0, state_detail = @state_detail,
  updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
where tenant_id = @tenant_id and destination_id = @destination_id
returning *;

-- name: TouchDestination :one
update destinations set updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
where tenant_id = @tenant_id and destination_id = @destination_id
returning *;

-- name: DeleteDestinations :exec
-- Their secrets go with them (on delete cascade). What is still to be delivered is the duty of SweepRemovedDestination.
with removed as (
  delete from destinations where destinations.tenant_id = @tenant_id and destinations.destination_id = any(@destination_ids::uuid[])
  returning destinations.tenant_id, destinations.destination_id
)
insert into removed_destinations (tenant_id, destination_id) select removed.tenant_id, removed.destination_id from removed;

-- name: SweepRemovedDestination :one
-- One step of a duty that each deleted destination leaves behind: its deliveries that wait for their time are made due,
-- so that the next claims turn them into dead letters. Called by delivery.Removals. A step looks at a page of the tenant's
-- queue (primary key) and skips what is leased or locked. A first pass begins at once; a second one, settle_seconds after
-- the deletion, finds what was in flight meanwhile or was still made by a node with an older snapshot.
with removal as materialized (
  select r.tenant_id, r.destination_id, r.swept_to, r.removed_at + make_interval(secs => @settle_seconds::float8) as settled_at
  from removed_destinations r where r.sweep_at <= now() order by r.sweep_at limit 1 for update skip locked
), page as materialized (
  select d.delivery_id from delivery_queue d
  where d.tenant_id = (select tenant_id from removal) and d.delivery_id > (select swept_to from removal)
  order by d.delivery_id limit @max_rows::integer
), hastened as (
  update delivery_queue q set due_at = now(), order_key = null, order_seq = null
  where q.ctid = any(array(
    select d.ctid from delivery_queue d
    where d.tenant_id = (select tenant_id from removal) and d.delivery_id > (select swept_to from removal)
      and d.delivery_id <= (select p.delivery_id from page p order by p.delivery_id desc limit 1)
      and d.destination_id = (select destination_id from removal) and d.lease_owner is null and d.due_at > now()
    for update skip locked))
  returning q.delivery_id
), step as materialized (
  select r.tenant_id, r.destination_id, r.settled_at, count(p.delivery_id) < @max_rows::integer as passed
  from removal r left join page p on true
  group by r.tenant_id, r.destination_id, r.settled_at
), advanced as (
  update removed_destinations r
  set swept_to = case when s.passed then '00000000-0000-0000-0000-000000000000'::uuid
      else (select p.delivery_id from page p order by p.delivery_id desc limit 1) end,
    sweep_at = case when s.passed then s.settled_at else now() end
  from step s
  where r.tenant_id = s.tenant_id and r.destination_id = s.destination_id and not (s.passed and now() >= s.settled_at)
  returning r.destination_id
), finished as (
  delete from removed_destinations r using step s
  where r.tenant_id = s.tenant_id and r.destination_id = s.destination_id and s.passed and now() >= s.settled_at
  returning r.destination_id
)
select (exists (select from removal))::boolean as worked, (select count(*) from hastened) as hastened;

-- name: EndDestinationSecrets :exec
-- Has the present secrets end after an overlap; one that ends sooner already still does.
update destination_secrets
set expires_at = least(expires_at, now() + make_interval(secs => @overlap_seconds::float8))
where tenant_id = @tenant_id and destination_id = @destination_id;

-- name: RemoveEndedDestinationSecrets :exec
delete from destination_secrets where tenant_id = @tenant_id and destination_id = @destination_id and expires_at <= now();
