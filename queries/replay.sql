-- Steering deliveries: retry, cancel, and replay of dead letters.

-- name: FindDeadLetters :many
-- A page in the order of the log, for replays. Index dead_letters_leaf, dead_letters_endpoint, dead_letters_destination or
-- dead_letters_time, as the planner finds best. Empty arrays do not filter. fresh leaves out what was repeated already.
select d.tenant_id, d.dead_letter_id, d.event_id, d.endpoint_id, d.destination_id, d.reason, d.attempts, d.diagnosis, d.log_id,
  d.leaf_index, d.dead_at,
  coalesce((select e.event_type from events e where e.tenant_id = d.tenant_id and e.event_id = d.event_id), '')::text as event_type,
  exists (select from events e where e.tenant_id = d.tenant_id and e.event_id = d.event_id and not e.erased)::boolean as has_payload,
  exists (select from destinations t where t.tenant_id = d.tenant_id and t.destination_id = d.destination_id)::boolean as has_destination,
  coalesce((select r.delivery_id from redeliveries r where r.tenant_id = d.tenant_id and r.replay_of = d.dead_letter_id
    order by r.delivery_id desc limit 1), '00000000-0000-0000-0000-000000000000')::uuid as replayed_by
from dead_letters d
where d.tenant_id = @tenant_id and d.leaf_index > @after_index and d.leaf_index < @before_index
  and d.dead_at >= @dead_from and d.dead_at < @dead_before
  and (cardinality(@endpoint_ids::uuid[]) = 0 or d.endpoint_id = any(@endpoint_ids::uuid[]))
  and (cardinality(@destination_ids::uuid[]) = 0 or d.destination_id = any(@destination_ids::uuid[]))
  and (cardinality(@reasons::smallint[]) = 0 or d.reason = any(@reasons::smallint[]))
  and (cardinality(@event_types::text[]) + cardinality(@event_type_prefixes::text[]) = 0
    or exists (select from events e where e.tenant_id = d.tenant_id and e.event_id = d.event_id
      and (e.event_type = any(@event_types::text[])
        or exists (select from unnest(@event_type_prefixes::text[]) as prefix where starts_with(e.event_type, prefix)))))
  and (not @fresh::boolean or not exists (
    select from redeliveries r where r.tenant_id = d.tenant_id and r.replay_of = d.dead_letter_id))
order by d.leaf_index
limit @max_rows::integer;

-- name: CountDeadLetters :one
-- How many a replay would take, counted up to max_rows. As FindDeadLetters, with what nothing repeats yet alone.
select count(*) from (
  select from dead_letters d
  where d.tenant_id = @tenant_id and d.leaf_index < @before_index
    and d.dead_at >= @dead_from and d.dead_at < @dead_before
    and (cardinality(@endpoint_ids::uuid[]) = 0 or d.endpoint_id = any(@endpoint_ids::uuid[]))
    and (cardinality(@destination_ids::uuid[]) = 0 or d.destination_id = any(@destination_ids::uuid[]))
    and (cardinality(@reasons::smallint[]) = 0 or d.reason = any(@reasons::smallint[]))
    and (cardinality(@event_types::text[]) + cardinality(@event_type_prefixes::text[]) = 0
      or exists (select from events e where e.tenant_id = d.tenant_id and e.event_id = d.event_id
        and (e.event_type = any(@event_types::text[])
          or exists (select from unnest(@event_type_prefixes::text[]) as prefix where starts_with(e.event_type, prefix)))))
    and not exists (select from redeliveries r where r.tenant_id = d.tenant_id and r.replay_of = d.dead_letter_id)
  limit @max_rows::integer
) counted;

-- name: ListDeadLetters :many
-- A page, the newest first, for people: as FindDeadLetters. Index dead_letters_leaf, dead_letters_endpoint, dead_letters_destination or
-- dead_letters_time, as the planner finds best. Empty arrays do not filter.
select d.tenant_id, d.dead_letter_id, d.event_id, d.endpoint_id, d.destination_id, d.reason, d.attempts, d.diagnosis, d.log_id,
  d.leaf_index, d.dead_at,
  coalesce((select e.event_type from events e where e.tenant_id = d.tenant_id and e.event_id = d.event_id), '')::text as event_type,
  exists (select from events e where e.tenant_id = d.tenant_id and e.event_id = d.event_id and not e.erased)::boolean as has_payload,
  exists (select from destinations t where t.tenant_id = d.tenant_id and t.destination_id = d.destination_id)::boolean as has_destination,
  coalesce((select r.delivery_id from redeliveries r where r.tenant_id = d.tenant_id and r.replay_of = d.dead_letter_id
    order by r.delivery_id desc limit 1), '00000000-0000-0000-0000-000000000000')::uuid as replayed_by
from dead_letters d
where d.tenant_id = @tenant_id and d.leaf_index > @after_index and d.leaf_index < @before_index
  and d.dead_at >= @dead_from and d.dead_at < @dead_before
  and (cardinality(@endpoint_ids::uuid[]) = 0 or d.endpoint_id = any(@endpoint_ids::uuid[]))
  and (cardinality(@destination_ids::uuid[]) = 0 or d.destination_id = any(@destination_ids::uuid[]))
  and (cardinality(@reasons::smallint[]) = 0 or d.reason = any(@reasons::smallint[]))
  and (cardinality(@event_types::text[]) + cardinality(@event_type_prefixes::text[]) = 0
    or exists (select from events e where e.tenant_id = d.tenant_id and e.event_id = d.event_id
      and (e.event_type = any(@event_types::text[])
        or exists (select from unnest(@event_type_prefixes::text[]) as prefix where starts_with(e.event_type, prefix)))))
order by d.leaf_index desc
limit @max_rows::integer;

-- name: LastAttempts :many
-- The last attempt of each of some deliveries. Index attempts_delivery, in the partitions since the oldest of them.
select distinct on (delivery_id) log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id, outcome, leaf,
  diagnosis, response_excerpt
from attempts
where tenant_id = @tenant_id and delivery_id = any(@delivery_ids::uuid[]) and recorded_at >= @since and outcome <> 0
order by delivery_id, leaf_index desc;

-- name: GetRedelivery :one
-- What a delivery repeats. Primary key of redeliveries; first deliveries have no row.
select replay_of from redeliveries where tenant_id = @tenant_id and delivery_id = @delivery_id;

-- name: LockDelivery :one
-- The live row, held against claims and the recorder until the end of the transaction. Primary key.
select tenant_id, delivery_id, event_id, endpoint_id, destination_id, attempts, due_at, lease_owner, lost_owner, replay_of
from delivery_queue where tenant_id = @tenant_id and delivery_id = @delivery_id
for update;

-- name: MakeDue :exec
-- A row under a lease is being sent already. One that waits for its turn (delivery.turnMoment) is sent when that comes: due before, it
-- would stand in the way of claims, and look overdue. Primary key.
update delivery_queue set due_at = now()
where tenant_id = @tenant_id and delivery_id = @delivery_id and lease_owner is null and due_at > now()
  and due_at <> '2999-01-01 00:00:00+00'::timestamptz;

-- name: CancelDelivery :exec
-- Ends a live delivery. A node that holds it finds its row gone: it records the attempt, and changes nothing else. Should
-- it not live to do that, cancelled_leases says that there is an attempt to record.
with gone as (
  delete from delivery_queue q where q.tenant_id = @tenant_id and q.delivery_id = @delivery_id
  returning q.tenant_id, q.delivery_id, q.event_id, q.endpoint_id, q.destination_id, q.attempts, q.due_at, q.lease_owner, q.lost_owner
), held as (
  insert into cancelled_leases (tenant_id, delivery_id, event_id, endpoint_id, destination_id, attempts, lease_owner, lease_ends_at)
  select tenant_id, delivery_id, event_id, endpoint_id, destination_id, attempts, coalesce(lost_owner, lease_owner),
    case when lease_owner is null then now() else due_at end
  from gone where lost_owner is not null or lease_owner is not null
)
insert into cancellations (tenant_id, delivery_id, event_id, destination_id, attempts, reason)
select tenant_id, delivery_id, event_id, destination_id, attempts, @reason::text from gone;

-- name: EndedCancelledLeases :many
-- A page of the leases of cancelled deliveries that have ended. The table holds those of the last lease time only.
select tenant_id, delivery_id from cancelled_leases where lease_ends_at <= now() order by lease_ends_at limit @max_rows::integer;

-- name: TakeCancelledLease :one
-- Taken and gone, if the transaction commits; nothing when another node is at it. Primary key.
delete from cancelled_leases c
where c.ctid = any(array(
  select h.ctid from cancelled_leases h
  where h.tenant_id = @tenant_id and h.delivery_id = @delivery_id and h.lease_ends_at <= now()
  for update skip locked))
returning *;

-- name: MakeRedelivery :exec
-- One explicit wish: a new delivery, due at once. Zero ids stand for NULL.
with kept as (
  insert into redeliveries (tenant_id, delivery_id, event_id, replay_of)
  values (@tenant_id, @delivery_id, @event_id, nullif(@replay_of::uuid, '00000000-0000-0000-0000-000000000000'))
  returning tenant_id, delivery_id, event_id, replay_of
)
insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at, replay_of)
select tenant_id, delivery_id, event_id, @endpoint_id::uuid, @destination_id::uuid, now(), replay_of from kept;

-- name: MakeReplayDeliveries :execrows
-- A step's deliveries, due at once. A dead letter that another bulk replay has taken in the meantime is left to it (index
-- redeliveries_once); all replays insert in the order of the log, so they cannot deadlock.
with wanted as materialized (
  select u.* from rows from (
    unnest(@delivery_ids::uuid[]), unnest(@event_ids::uuid[]), unnest(@endpoint_ids::uuid[]),
    unnest(@destination_ids::uuid[]), unnest(@replay_ofs::uuid[])
  ) with ordinality as u(delivery_id, event_id, endpoint_id, destination_id, replay_of, position)
), kept as (
  insert into redeliveries (tenant_id, delivery_id, event_id, replay_of, replay_id)
  select @tenant_id::uuid, w.delivery_id, w.event_id, w.replay_of, @replay_id::uuid from wanted w order by w.position
  on conflict (tenant_id, replay_of) where replay_id is not null do nothing
  returning delivery_id
)
insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at, replay_of)
select @tenant_id::uuid, w.delivery_id, w.event_id, w.endpoint_id, w.destination_id, now(), w.replay_of
from wanted w where w.delivery_id in (select delivery_id from kept);

-- name: CreateReplay :one
insert into replays (tenant_id, replay_id, filter, rate_per_second, matched, before_index)
values (@tenant_id, @replay_id, @filter, @rate_per_second, @matched, @before_index)
returning *;

-- name: GetReplay :one
select * from replays where tenant_id = @tenant_id and replay_id = @replay_id;

-- name: ListReplays :many
-- The newest first. Primary key.
select * from replays where tenant_id = @tenant_id and replay_id < @before_id order by replay_id desc limit @max_rows::integer;

-- name: CancelReplay :execrows
-- Waits for the step that is being made.
update replays set state = 'cancelled', ended_at = now()
where tenant_id = @tenant_id and replay_id = @replay_id and state = 'running';

-- name: TakeReplay :one
-- A replay whose next step is due, held until the transaction ends; other nodes skip it. Index replays_due.
select * from replays where state = 'running' and step_at <= now() order by step_at limit 1 for update skip locked;

-- name: PutOffReplay :exec
-- After a step that failed and left nothing behind: so it does not stand in the way of the others. The pause doubles from
-- one second to five minutes.
update replays
set failures = failures + 1, error = @error, step_at = now() + least(interval '1 s' * power(2, least(failures, 20)), interval '5 min')
where tenant_id = @tenant_id and replay_id = @replay_id and state = 'running';

-- name: AdvanceReplay :exec
update replays
set failures = 0, error = '', replayed = replayed + @made::bigint, skipped = skipped + @passed::bigint, after_index = @after_index,
  step_at = greatest(step_at, now() - interval '1 s') + make_interval(secs => @wait_seconds::float8),
  state = case when @done::boolean then 'completed' else state end, ended_at = case when @done::boolean then now() end
where tenant_id = @tenant_id and replay_id = @replay_id;

-- name: LogSize :one
-- Every leaf below it is readable.
select next_index from logs where log_id = @log_id;
