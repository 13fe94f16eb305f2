-- name: CommitEvents :many
-- One batch of accepted webhooks: keys, events and their deliveries. Called by the group commit of ingest. Returns the ids
-- of the events that were new; those of the others are found by FirstEvents. A row without a dedup key has an empty
-- key_hash. Rows must be sorted by key, so that two batches cannot deadlock, and a key must not come twice. What is ordered
-- by a key waits for its turn (a moment of its own, delivery.turnMoment) and takes a number for the batch, within which
-- delivery ids go up; delivery_order_keys may be shorter than the other arrays, '' or nothing stands for no key. What goes to a
-- listening session is held from the start (delivery.HeldUntil); in delivery_held_untils nothing, or what is past, stands for now.
with won as (
  insert into dedup_keys as d (tenant_id, endpoint_id, key_hash, event_id, expires_at)
  select * from rows from (
    unnest(@tenant_ids::uuid[]), unnest(@endpoint_ids::uuid[]), unnest(@key_hashes::bytea[]), unnest(@event_ids::uuid[]),
    unnest(@key_expiries::timestamptz[])
  ) as u(tenant_id, endpoint_id, key_hash, event_id, expires_at)
  where u.key_hash <> ''
  on conflict (tenant_id, endpoint_id, key_hash) do update
    set event_id = excluded.event_id, expires_at = excluded.expires_at
    where d.expires_at <= now()
  returning event_id
), fresh as materialized (
  select event_id from won
  union all
  select u.event_id from rows from (unnest(@event_ids::uuid[]), unnest(@key_hashes::bytea[])) as u(event_id, key_hash)
  where u.key_hash = ''
), stored as (
  insert into events (tenant_id, event_id, endpoint_id, received_at, body, headers, content_type, event_type, dedup_key,
    source_address, verification, defect)
  select * from rows from (
    unnest(@tenant_ids::uuid[]), unnest(@event_ids::uuid[]), unnest(@endpoint_ids::uuid[]),
    unnest(@received_ats::timestamptz[]), unnest(@bodies::bytea[]), unnest(@headers::bytea[]),
    unnest(@content_types::text[]), unnest(@event_types::text[]), unnest(@dedup_keys::text[]),
    unnest(@source_addresses::text[]), unnest(@verifications::text[]), unnest(@defects::text[])
  ) as u(tenant_id, event_id, endpoint_id, received_at, body, headers, content_type, event_type, dedup_key,
    source_address, verification, defect)
  where u.event_id in (select event_id from fresh)
), queued as (
  insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at, lease_owner, order_key, order_seq)
  select u.tenant_id, u.delivery_id, u.event_id, u.endpoint_id,
    nullif(u.destination_id, '00000000-0000-0000-0000-000000000000'),
    case when u.leased then now() + make_interval(secs => @lease_seconds::float8)
      when u.order_key <> '' then '2999-01-01 00:00:00+00'::timestamptz else greatest(now(), u.held_until) end,
    case when u.leased then @node_id::uuid end,
    nullif(u.order_key, ''), case when u.order_key <> '' then (select nextval('delivery_order')) end
  from rows from (
    unnest(@delivery_tenant_ids::uuid[]), unnest(@delivery_ids::uuid[]), unnest(@delivery_event_ids::uuid[]),
    unnest(@delivery_endpoint_ids::uuid[]), unnest(@delivery_destination_ids::uuid[]), unnest(@delivery_leased::boolean[]),
    unnest(@delivery_order_keys::bytea[]), unnest(@delivery_held_untils::timestamptz[])
  ) as u(tenant_id, delivery_id, event_id, endpoint_id, destination_id, leased, order_key, held_until)
  where u.event_id in (select event_id from fresh)
)
select event_id from fresh;

-- name: FirstEvents :many
-- The first event of each key, for the rows of a batch that CommitEvents did not take. Primary keys of dedup_keys and
-- events. received_at is NULL when retention has removed the event.
select d.endpoint_id, d.key_hash, d.event_id, e.received_at, coalesce(e.defect, '')::text as defect
from rows from (unnest(@tenant_ids::uuid[]), unnest(@endpoint_ids::uuid[]), unnest(@key_hashes::bytea[]))
  as u(tenant_id, endpoint_id, key_hash)
join dedup_keys d on d.tenant_id = u.tenant_id and d.endpoint_id = u.endpoint_id and d.key_hash = u.key_hash
left join events e on e.tenant_id = d.tenant_id and e.event_id = d.event_id;

-- name: CommittedEvents :many
-- Which of these events are there: asked after a COMMIT whose answer was lost. Primary key of events.
select e.event_id
from rows from (unnest(@tenant_ids::uuid[]), unnest(@event_ids::uuid[])) as u(tenant_id, event_id)
join events e on e.tenant_id = u.tenant_id and e.event_id = u.event_id;

-- name: DeleteExpiredDedupKeys :execrows
-- Called by maintenance, some at a time. Index dedup_keys_expires.
delete from dedup_keys where ctid = any(array(
  select d.ctid from dedup_keys d where d.expires_at <= now() limit @max_rows::integer for update skip locked));
