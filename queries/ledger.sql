-- name: RecordAttempts :many
-- One batch of results: leaves with their indexes, the queue's change, dead letters, in one statement and so in one
-- transaction. Called by the recorder. A result changes the queue only if its node still holds the lease for just this
-- attempt (fence: lease_owner and attempts), and its leaves are written only if it did: the leaf of an attempt that changed
-- nothing says so, and comes in a batch of its own, without a result. Queue rows are looked up by primary key one by one and
-- changed by ctid: a join would let the planner read the whole queue, which looks small to it and may be full of dead rows.
-- The row lock on logs is taken last, when all else is done. A node's batches take turns (advisory lock), so that
-- AwaitRecorder can wait for one whose answer was lost. Returns an index a leaf that was written.
with turn as materialized (
  select pg_advisory_xact_lock(uuid_hash_extended(@node_id::uuid, 0)) as taken
), result as materialized (
  select u.* from turn, rows from (
    unnest(@tenant_ids::uuid[]), unnest(@delivery_ids::uuid[]), unnest(@attempts_before::integer[]),
    unnest(@attempts_after::integer[]), unnest(@closes::boolean[]), unnest(@wait_seconds::float8[])
  ) as u(tenant_id, delivery_id, attempts_before, attempts_after, closes, wait_seconds)
), closed as (
  delete from delivery_queue q
  where q.ctid = any(array(
      select (select d.ctid from delivery_queue d where d.tenant_id = r.tenant_id and d.delivery_id = r.delivery_id
        and d.attempts = r.attempts_before)
      from result r where r.closes))
    and q.lease_owner = @node_id::uuid
  returning q.delivery_id
), requeued as (
  update delivery_queue q
  set attempts = r.attempts_after, due_at = now() + make_interval(secs => r.wait_seconds), lease_owner = null, lost_owner = null
  from result r
  where q.ctid = any(array(
      select (select d.ctid from delivery_queue d where d.tenant_id = r.tenant_id and d.delivery_id = r.delivery_id
        and d.attempts = r.attempts_before)
      from result r where not r.closes))
    and q.lease_owner = @node_id::uuid and q.tenant_id = r.tenant_id and q.delivery_id = r.delivery_id
  returning q.delivery_id
), leaf as materialized (
  select u.*, row_number() over (order by u.position) - 1 as place
  from turn, rows from ( -- leaves that change nothing come without a result
    unnest(@leaf_ids::uuid[]), unnest(@leaf_tenant_ids::uuid[]), unnest(@leaf_delivery_ids::uuid[]),
    unnest(@leaf_event_ids::uuid[]), unnest(@leaf_outcomes::smallint[]), unnest(@leaf_bytes::bytea[]),
    unnest(@leaf_diagnoses::text[]), unnest(@leaf_excerpts::bytea[]), unnest(@leaf_fenced::boolean[])
  ) with ordinality as u(leaf_id, tenant_id, delivery_id, event_id, outcome, bytes, diagnosis, excerpt, fenced, position)
  where not u.fenced or u.delivery_id in (select delivery_id from closed union all select delivery_id from requeued)
), base as (
  update logs set next_index = next_index + (select count(*) from leaf)
  where log_id = @log_id::integer
  returning next_index - (select count(*) from leaf) as first
), written as (
  insert into attempts (log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id, outcome, leaf,
    diagnosis, response_excerpt)
  select @log_id::integer, base.first + leaf.place, now(), leaf.tenant_id, leaf.leaf_id, leaf.delivery_id, leaf.event_id,
    leaf.outcome, leaf.bytes, leaf.diagnosis, leaf.excerpt
  from leaf, base
  returning attempt_id, leaf_index
), buried as (
  insert into dead_letters (tenant_id, dead_letter_id, event_id, endpoint_id, destination_id, reason, attempts, diagnosis,
    log_id, leaf_index, dead_at)
  select u.tenant_id, u.dead_letter_id, u.event_id, u.endpoint_id,
    nullif(u.destination_id, '00000000-0000-0000-0000-000000000000'), u.reason, u.attempts, u.diagnosis,
    @log_id::integer, base.first + leaf.place, now()
  from rows from (
    unnest(@dead_tenant_ids::uuid[]), unnest(@dead_letter_ids::uuid[]), unnest(@dead_leaf_ids::uuid[]),
    unnest(@dead_event_ids::uuid[]), unnest(@dead_endpoint_ids::uuid[]), unnest(@dead_destination_ids::uuid[]),
    unnest(@dead_reasons::smallint[]), unnest(@dead_attempts::integer[]), unnest(@dead_diagnoses::text[])
  ) as u(tenant_id, dead_letter_id, leaf_id, event_id, endpoint_id, destination_id, reason, attempts, diagnosis)
  join leaf on leaf.leaf_id = u.leaf_id
  cross join base
)
select attempt_id, leaf_index from written;

-- name: AwaitRecorder :exec
-- Waits until no earlier batch of this node is under way any more.
select pg_advisory_xact_lock(uuid_hash_extended(@node_id::uuid, 0));

-- name: RecordedAttempts :many
-- Which of these leaves are there: asked after a COMMIT whose answer was lost. Index attempts_id; only the partitions
-- since the first try are read.
select a.attempt_id, a.leaf_index
from attempts a
where a.attempt_id = any(@attempt_ids::uuid[]) and a.recorded_at >= @since::timestamptz;

-- name: CancelledUnderWay :many
-- Of attempts of a node that found their queue row gone or with another owner: which deliveries were cancelled while it held
-- them. Called by the recorder. Primary key of cancelled_leases, a small table.
select c.delivery_id
from rows from (unnest(@tenant_ids::uuid[]), unnest(@delivery_ids::uuid[]), unnest(@attempts::integer[])) as u(tenant_id, delivery_id, attempts)
join cancelled_leases c on c.tenant_id = u.tenant_id and c.delivery_id = u.delivery_id and c.attempts = u.attempts
where c.lease_owner = @node_id::uuid and c.lease_ends_at > now();
