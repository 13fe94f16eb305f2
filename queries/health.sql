-- Circuit breakers and the health of destinations, as all nodes share them.

-- name: ChangedBreakers :many
-- Called by each node once a second, with the newest changed_at that it knows, less some seconds: a transaction may end
-- later than another that began after it. A node that starts asks for all that are not closed. Index
-- destination_health_changed.
select h.tenant_id, h.destination_id, h.breaker, h.pauses, h.successes, h.generation, h.changed_at,
  coalesce(extract(epoch from h.probe_at - now()), 0)::float8 as probe_in_seconds
from destination_health h
where h.changed_at >= @since::timestamptz and (h.breaker <> 1 or not @only_open::boolean);

-- name: StandingBreaker :one
-- Called by a node whose probe found another generation than it knew.
select breaker, pauses, successes, generation, coalesce(extract(epoch from probe_at - now()), 0)::float8 as probe_in_seconds
from destination_health where tenant_id = @tenant_id and destination_id = @destination_id;

-- name: ShareBreakers :many
-- Writes transitions that a node made, each only if nobody made another since (generation), and tells people of those that
-- have a kind. Returns for each what stands: its own, or (won is false) what was there before. A destination that was deleted
-- has no row.
with mine as materialized (
  select u.* from rows from (
    unnest(@tenant_ids::uuid[]), unnest(@destination_ids::uuid[]), unnest(@breakers::smallint[]), unnest(@probe_in_seconds::float8[]),
    unnest(@pauses::integer[]), unnest(@successes::smallint[]), unnest(@generations::bigint[]),
    unnest(@event_ids::uuid[]), unnest(@kinds::text[]), unnest(@details::text[])
  ) as u(tenant_id, destination_id, breaker, probe_in_seconds, pauses, successes, generation, event_id, kind, detail)
), won as (
  insert into destination_health as h (tenant_id, destination_id, breaker, probe_at, pauses, successes, generation, changed_at)
  select m.tenant_id, m.destination_id, m.breaker,
    case when m.breaker <> 1 then now() + make_interval(secs => m.probe_in_seconds) end, m.pauses, m.successes, m.generation + 1, now()
  from mine m join destinations d on d.tenant_id = m.tenant_id and d.destination_id = m.destination_id
  order by m.tenant_id, m.destination_id
  on conflict (tenant_id, destination_id) do update
  set breaker = excluded.breaker, probe_at = excluded.probe_at, pauses = excluded.pauses, successes = excluded.successes,
    generation = excluded.generation, changed_at = excluded.changed_at
  where h.generation = excluded.generation - 1
  returning h.tenant_id, h.destination_id, h.generation
), told as (
  insert into operational_events (tenant_id, operational_event_id, kind, destination_id, detail)
  select m.tenant_id, m.event_id, m.kind, m.destination_id, m.detail
  from mine m join won w on w.tenant_id = m.tenant_id and w.destination_id = m.destination_id
  where m.kind <> ''
)
select m.destination_id::uuid as destination_id, (w.generation is not null)::boolean as won,
  coalesce(w.generation, h.generation, 0)::bigint as generation, coalesce(h.breaker, 1)::smallint as breaker,
  coalesce(h.pauses, 0)::integer as pauses, coalesce(h.successes, 0)::smallint as successes,
  coalesce(extract(epoch from h.probe_at - now()), 0)::float8 as probe_in_seconds
from mine m
left join won w on w.tenant_id = m.tenant_id and w.destination_id = m.destination_id
left join destination_health h on h.tenant_id = m.tenant_id and h.destination_id = m.destination_id;

-- name: WriteHealth :exec
-- Adds what a node saw since it wrote last: of each destination either a success and the failures after it, or failures only.
-- Failures from before a success that another node wrote already, or from its microsecond, are not in a row with what comes.
-- Rows are taken in one order, so that nodes do not lock each other. The first moment of year 1 and the zero id stand for none.
insert into destination_health as h (tenant_id, destination_id, consecutive_failures, failing_since, last_success_at, last_failure_id,
  last_failure_at, last_diagnosis)
select u.tenant_id, u.destination_id, u.failures, nullif(u.failing_since, '0001-01-01 00:00:00+00'), nullif(u.success_at, '0001-01-01 00:00:00+00'),
  nullif(u.failure_id, '00000000-0000-0000-0000-000000000000'), nullif(u.failure_at, '0001-01-01 00:00:00+00'), u.diagnosis
from rows from (
  unnest(@tenant_ids::uuid[]), unnest(@destination_ids::uuid[]), unnest(@failures::integer[]), unnest(@failing_sinces::timestamptz[]),
  unnest(@success_ats::timestamptz[]), unnest(@failure_ids::uuid[]), unnest(@failure_ats::timestamptz[]), unnest(@diagnoses::text[])
) as u(tenant_id, destination_id, failures, failing_since, success_at, failure_id, failure_at, diagnosis)
join destinations d on d.tenant_id = u.tenant_id and d.destination_id = u.destination_id
order by u.tenant_id, u.destination_id
on conflict (tenant_id, destination_id) do update
set consecutive_failures = case when excluded.last_success_at is not null then excluded.consecutive_failures
      when excluded.last_failure_at <= h.last_success_at then h.consecutive_failures
      else h.consecutive_failures + excluded.consecutive_failures end,
  failing_since = case when excluded.last_success_at is not null then excluded.failing_since
      when excluded.last_failure_at <= h.last_success_at then h.failing_since
      else coalesce(h.failing_since, greatest(excluded.failing_since, h.last_success_at)) end,
  last_success_at = greatest(h.last_success_at, excluded.last_success_at),
  last_failure_id = case when excluded.last_failure_at >= coalesce(h.last_failure_at, '-infinity') then excluded.last_failure_id else h.last_failure_id end,
  last_diagnosis = case when excluded.last_failure_at >= coalesce(h.last_failure_at, '-infinity') then excluded.last_diagnosis else h.last_diagnosis end,
  last_failure_at = greatest(h.last_failure_at, excluded.last_failure_at);

-- name: WriteTraffic :exec
-- A node's figures of a minute, as they are by now.
insert into destination_traffic as t (tenant_id, destination_id, minute, node_id, succeeded, failed, durations, in_flight)
select u.tenant_id, u.destination_id, u.minute, @node_id::uuid, u.succeeded, u.failed, u.durations, u.in_flight
from rows from (
  unnest(@tenant_ids::uuid[]), unnest(@destination_ids::uuid[]), unnest(@minutes::timestamptz[]), unnest(@succeeded::bigint[]),
  unnest(@failed::bigint[]), unnest(@durations::bytea[]), unnest(@in_flight::integer[])
) as u(tenant_id, destination_id, minute, succeeded, failed, durations, in_flight)
join destinations d on d.tenant_id = u.tenant_id and d.destination_id = u.destination_id
on conflict (tenant_id, destination_id, minute, node_id) do update
set succeeded = excluded.succeeded, failed = excluded.failed, durations = excluded.durations, in_flight = excluded.in_flight, written_at = now();

-- name: RemoveTraffic :exec
-- Index destination_traffic_minute.
delete from destination_traffic where minute < now() - make_interval(secs => @older_than_seconds::float8);

-- name: RemoveOperationalEvents :exec
-- Index operational_events_time.
delete from operational_events where created_at < now() - make_interval(secs => @older_than_seconds::float8);

-- name: ClaimProbe :many
-- Takes the one delivery that may be sent to a destination whose breaker is open, for the node that is first to ask after
-- probe_at; the others find another generation. Nothing happens when nothing is held. Of what is ordered by a key only the first
-- is taken, as by ClaimDue. Index delivery_queue_due, of which the moment is the destination's alone.
with target as materialized (
  select q.tenant_id, q.delivery_id from delivery_queue q
  where q.due_at >= @held_until::timestamptz and q.due_at <= @held_until::timestamptz
    and q.tenant_id = @tenant_id::uuid and q.destination_id = @destination_id::uuid
    and (q.order_key is null or not exists (
      select from delivery_queue o where o.destination_id = q.destination_id and o.order_key = q.order_key
        and (o.order_seq, o.delivery_id) < (q.order_seq, q.delivery_id)))
  order by q.due_at limit 1
  for update skip locked
), won as (
  update destination_health h
  set breaker = 3, probe_at = now() + make_interval(secs => @probe_seconds::float8), generation = h.generation + 1, changed_at = now()
  where h.tenant_id = @tenant_id::uuid and h.destination_id = @destination_id::uuid and h.generation = @generation::bigint
    and h.breaker <> 1 and h.probe_at <= now() and exists (select from target)
  returning h.tenant_id
)
update delivery_queue q
set lease_owner = @node_id::uuid, due_at = now() + make_interval(secs => @lease_seconds::float8)
where q.tenant_id = (select w.tenant_id from won w) and q.delivery_id = (select t.delivery_id from target t)
returning q.tenant_id, q.delivery_id, q.event_id, q.endpoint_id, q.destination_id, q.attempts, q.lost_owner, q.order_key;

-- name: ResetBreaker :exec
-- Called when its owner resumes a destination: it is tried again at once, and all nodes forget that it failed.
update destination_health
set breaker = 1, probe_at = null, pauses = 0, successes = 0, generation = generation + 1, changed_at = now(),
  consecutive_failures = 0, failing_since = null
where tenant_id = @tenant_id and destination_id = @destination_id;

-- name: DisableDestination :execrows
-- Called when an attempt, or days of them, showed that nothing may be sent any more. Compares and swaps: of many attempts
-- one disables it and says so, and a pause by its owner stays. An attempt that was made with the settings of known_at says
-- nothing of a destination that its owner has changed or resumed since.
with disabled as (
  update destinations d
  set state = 'disabled', disable_reason = @disable_reason, state_detail = @state_detail,
    updated_at = greatest(clock_timestamp(), d.updated_at + interval '1 microsecond')
  where d.tenant_id = @tenant_id and d.destination_id = @destination_id and d.state = 'enabled'
    and d.updated_at <= coalesce(sqlc.narg(known_at)::timestamptz, d.updated_at)
  returning d.tenant_id, d.destination_id, d.state_detail
), audited as (
  insert into audit_entries (tenant_id, entry_id, actor, action, resource_id, detail, source_address)
  select d.tenant_id, @operational_event_id::uuid, 'system', 'DestinationDisabled', @resource_id::text, d.state_detail, '' from disabled d
)
insert into operational_events (tenant_id, operational_event_id, kind, destination_id, event_id, detail)
select d.tenant_id, @operational_event_id::uuid, 'destination_disabled', d.destination_id, @event_id, d.state_detail from disabled d;

-- name: FailingDestinations :many
-- Those that are enabled and of which every attempt failed, from the first to the last, for so long. Index
-- destination_health_failing.
select h.tenant_id, h.destination_id, h.consecutive_failures, h.failing_since::timestamptz as failing_since, h.last_diagnosis
from destination_health h join destinations d on d.tenant_id = h.tenant_id and d.destination_id = h.destination_id
where h.failing_since < now() - make_interval(secs => @seconds::float8)
  and h.last_failure_at >= h.failing_since + make_interval(secs => @seconds::float8)
  and d.state = 'enabled'
order by h.failing_since limit @max_rows::integer;

-- name: DestinationHealth :one
select * from destination_health where tenant_id = @tenant_id and destination_id = @destination_id;

-- name: DestinationTraffic :many
-- The figures of the last minutes, each node's newest first.
select * from destination_traffic
where tenant_id = @tenant_id and destination_id = @destination_id and minute >= @since::timestamptz
order by node_id, minute desc;

-- name: QueueFront :one
-- What is overdue of a destination among the first max_rows rows of the queue, and since when. Index delivery_queue_due. Only
-- for the engine: under row-level security the limit would not bound what is read.
select count(*) as overdue, coalesce(min(f.due_at), 'epoch')::timestamptz as oldest_due_at
from (select q.due_at, q.destination_id, q.lease_owner from delivery_queue q where q.due_at <= now() order by q.due_at limit @max_rows::integer) f
where f.destination_id = @destination_id::uuid and f.lease_owner is null;

-- name: QueuePages :one
-- How large the queue is, in pages.
select (pg_relation_size('delivery_queue') / current_setting('block_size')::bigint)::bigint as pages;

-- name: SampleQueue :one
-- Counts a destination's rows in some of the queue's pages. For the engine.
select count(*) from delivery_queue q tablesample system (@percent::float4) where q.destination_id = @destination_id::uuid;
