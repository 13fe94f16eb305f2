-- Erasure of events and tenants. Called by ledger.Eraser, as the engine.

-- name: RequestErasure :exec
-- Makes the duty, or has one that was done looked at again. A zero event_id is all of the tenant.
insert into erasures (tenant_id, event_id, reason, payload_sha256, payload_bytes)
values (@tenant_id, @event_id, @reason, (select sha256(e.body) from events e where e.tenant_id = @tenant_id and e.event_id = @event_id),
  (select length(e.body) from events e where e.tenant_id = @tenant_id and e.event_id = @event_id))
on conflict (tenant_id, event_id) do update set look_at = now(), finished_at = null;

-- name: GetErasure :one
select * from erasures where tenant_id = @tenant_id and event_id = @event_id;

-- name: LockErasure :one
select * from erasures where tenant_id = @tenant_id and event_id = @event_id for update;

-- name: TakeErasure :one
-- A duty that is to be looked at and that no other node is at. Index erasures_due.
select * from erasures where finished_at is null and look_at <= now() order by look_at limit 1 for update skip locked;

-- name: AdvanceErasure :exec
update erasures
set after_event = @after_event, after_index = @after_index, look_at = now() + make_interval(secs => @wait_seconds::float8),
  finished_at = case when @finished::boolean then now() end,
  payload_sha256 = case when @finished::boolean then null else payload_sha256 end,
  payload_bytes = case when @finished::boolean then null else payload_bytes end
where tenant_id = @tenant_id and event_id = @event_id;

-- name: PutOffErasure :exec
-- After a step that failed, so that it holds up no other duty.
update erasures set look_at = now() + make_interval(secs => @wait_seconds::float8) where tenant_id = @tenant_id and event_id = @event_id;

-- name: EraseEvents :one
select kapsel_erase_events(@tenant_id::uuid, @event_ids::uuid[])::integer as erased;

-- name: EraseLeaves :one
select kapsel_erase_leaves(@log_id::integer, @tenant_id::uuid, @event_id::uuid, @leaf_indexes::bigint[], @recorded_from::timestamptz,
  @recorded_to::timestamptz, @erasure_id::uuid, @leaf::bytea, @reason::text)::bigint as leaf_index;

-- name: LeavesOfEventToErase :many
-- Leaves of an event that have their bytes, but for those of erasures. Index attempts_event, in the partitions since.
select leaf_index, recorded_at from attempts
where tenant_id = @tenant_id and event_id = @event_id and recorded_at >= @since and leaf <> '' and delivery_id <> attempt_id
order by leaf_index limit @max_rows::integer;

-- name: LeavesOfTenantToErase :many
-- The same of a tenant, in a stretch of the log. Primary key of attempts.
select leaf_index, recorded_at from attempts
where log_id = @log_id and leaf_index > @after_index::bigint and leaf_index < @before_index::bigint
  and tenant_id = @tenant_id and leaf <> '' and delivery_id <> attempt_id
order by leaf_index limit @max_rows::integer;

-- name: EventsOfTenant :many
-- Primary key of events.
select event_id from events where tenant_id = @tenant_id and event_id > @after_event order by event_id limit @max_rows::integer;

-- name: CancelDeliveriesOfTenant :execrows
-- Like CancelDelivery, a page at a time. Primary key of delivery_queue.
with gone as (
  delete from delivery_queue q
  where q.ctid = any(array(
      select d.ctid from delivery_queue d where d.tenant_id = @tenant_id::uuid and d.destination_id is not null
      limit @max_rows::integer for update skip locked))
  returning q.tenant_id, q.delivery_id, q.event_id, q.endpoint_id, q.destination_id, q.attempts, q.due_at, q.lease_owner, q.lost_owner
), held as (
  insert into cancelled_leases (tenant_id, delivery_id, event_id, endpoint_id, destination_id, attempts, lease_owner, lease_ends_at)
  select tenant_id, delivery_id, event_id, endpoint_id, destination_id, attempts, coalesce(lost_owner, lease_owner),
    case when lease_owner is null then now() else due_at end
  from gone where lost_owner is not null or lease_owner is not null
)
insert into cancellations (tenant_id, delivery_id, event_id, destination_id, attempts, reason)
select tenant_id, delivery_id, event_id, destination_id, attempts, @reason::text from gone;

-- name: CountUndeliveredOfTenant :one
-- What is left in the queue: dead letters that are still to be written. Primary key of delivery_queue.
select count(*) from delivery_queue where tenant_id = @tenant_id;

-- name: CountCancelledLeases :one
-- Attempts of a tenant that may still have to be recorded as lost ones, from the stored payload. Primary key.
select count(*) from cancelled_leases where tenant_id = @tenant_id;

-- name: ErasedEvent :one
-- What is still known of an erased event while its erasure is under way. Primary keys.
select e.received_at, e.verification, u.payload_sha256, coalesce(u.payload_bytes, 0)::bigint as payload_bytes
from erasures u join events e on e.tenant_id = u.tenant_id and e.event_id = u.event_id
where u.tenant_id = @tenant_id and u.event_id = @event_id and u.payload_sha256 is not null;
