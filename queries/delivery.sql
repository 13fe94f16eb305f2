-- name: ClaimDue :many
-- The claimer's only query for work: rows that are due, whoever held them before. Index delivery_queue_due. Rows that
-- another node is claiming are skipped; so are those of full or inactive destinations, unless a lost node's attempt is to
-- be recorded: lost_owner is the node whose lease ran out, NULL for an ordinary retry.
update delivery_queue q
set lost_owner = coalesce(q.lease_owner, q.lost_owner), lease_owner = @node_id::uuid,
  due_at = now() + make_interval(secs => @lease_seconds::float8)
where q.ctid = any(array(
  select d.ctid from delivery_queue d
  where d.due_at <= now()
    and (d.destination_id is null or d.lease_owner is not null or d.lost_owner is not null
      or d.destination_id <> all(@full_destination_ids::uuid[]))
  order by d.due_at
  limit @max_rows::integer
  for update skip locked))
returning q.tenant_id, q.delivery_id, q.event_id, q.endpoint_id, q.destination_id, q.attempts, q.lost_owner;

-- name: LoadEvents :many
-- What claimed deliveries carry, in the order asked, up to max_bytes of payload (at least one): a claim of many large
-- payloads does not fill the memory. Primary key of events, one partition an event.
select e.tenant_id, e.event_id, e.received_at, e.body, e.headers, e.content_type, e.event_type, e.verification, e.defect
from (
  select u.tenant_id, u.event_id, u.position, sum(length(e.body)) over (order by u.position) as total_bytes
  from rows from (unnest(@tenant_ids::uuid[]), unnest(@event_ids::uuid[])) with ordinality as u(tenant_id, event_id, position)
  join events e on e.tenant_id = u.tenant_id and e.event_id = u.event_id
) u
join events e on e.tenant_id = u.tenant_id and e.event_id = u.event_id
where u.total_bytes <= @max_bytes::bigint or u.position = 1
order by u.position;

-- name: ReleaseLeases :execrows
-- Gives back what was claimed but not sent, due at once. lost_owner stays, so that a lost node's attempt is still recorded
-- by whoever claims the row next. Primary key of delivery_queue.
update delivery_queue q
set lease_owner = null, due_at = now()
where q.ctid = any(array(
    select (select d.ctid from delivery_queue d where d.tenant_id = u.tenant_id and d.delivery_id = u.delivery_id)
    from rows from (unnest(@tenant_ids::uuid[]), unnest(@delivery_ids::uuid[])) as u(tenant_id, delivery_id)))
  and q.lease_owner = @node_id::uuid;

-- name: ExpireLeasesOfDeadNodes :execrows
-- Makes the leases of nodes without a recent heartbeat due now, so that the next claim takes them over. A leased row is
-- due within the lease's length, so index delivery_queue_due bounds what is read.
update delivery_queue q
set due_at = now()
where q.due_at > now() and q.due_at <= now() + make_interval(secs => @lease_seconds::float8)
  and q.lease_owner in (
    select n.node_id from nodes n where n.node_id <> @node_id::uuid and n.heartbeat_at < now() - make_interval(secs => @dead_after_seconds::float8));

-- name: Heartbeat :exec
insert into nodes (node_id, name, version, roles) values (@node_id, @name, @version, @roles)
on conflict (node_id) do update set heartbeat_at = now();

-- name: RemoveNode :exec
delete from nodes where node_id = @node_id;

-- name: RemoveDeadNodes :execrows
-- Forgets nodes that are dead for so long that none of their leases can be left.
delete from nodes where heartbeat_at < now() - make_interval(secs => @dead_for_seconds::float8);

-- name: HoldDeliveries :execrows
-- Puts due rows of paused and disabled destinations off to the moment that stands for theirs, so that no claim reads them
-- again. Called by the holder. Looks at the first page_rows due rows (index delivery_queue_due), whoever they are for: so a
-- step is bounded. What a lost node held is left to the claim, which records its attempt.
update delivery_queue q
set due_at = (
  select u.held_until from rows from (unnest(@destination_ids::uuid[]), unnest(@held_untils::timestamptz[])) as u(destination_id, held_until)
  where u.destination_id = q.destination_id limit 1)
where q.ctid = any(array(
  select h.ctid from delivery_queue h
  where h.ctid = any(array(select d.ctid from delivery_queue d where d.due_at <= now() order by d.due_at limit @page_rows::integer))
    and h.due_at <= now() and h.lease_owner is null and h.lost_owner is null and h.destination_id = any(@destination_ids::uuid[])
  for update skip locked));

-- name: HeldMoments :many
-- The moments at which something is held, one a destination. Walks index delivery_queue_due from moment to moment: one probe
-- for each, however many rows stand there.
with recursive held as (
  (select d.due_at from delivery_queue d where d.due_at >= @from_moment::timestamptz order by d.due_at limit 1)
  union all
  (select (select d.due_at from delivery_queue d where d.due_at > h.due_at order by d.due_at limit 1) from held h where h.due_at is not null)
)
select h.due_at::timestamptz as held_until from held h where h.due_at is not null;

-- name: ReleaseHeld :execrows
-- Makes some held rows of a destination due. Index delivery_queue_due, of which the moment is its destination's alone.
-- A range with an order, not an equality: so the index is read only as far as the limit, not for the whole backlog.
update delivery_queue q
set due_at = now()
where q.ctid = any(array(
  select d.ctid from delivery_queue d
  where d.due_at >= @held_until::timestamptz and d.due_at <= @held_until::timestamptz and d.destination_id = @destination_id::uuid
  order by d.due_at limit @max_rows::integer for update skip locked));

-- name: DisableDestination :execrows
-- Called when an attempt showed that nothing may be sent any more. Compares and swaps: of many attempts one disables it, and
-- a pause by its owner stays.
update destinations
set state = 'disabled', disable_reason = @disable_reason, state_detail = @state_detail,
  updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
where tenant_id = @tenant_id and destination_id = @destination_id and state = 'enabled';

-- name: CancelVanished :execrows
-- Ends claimed deliveries whose event is no longer there: without it they can neither be sent nor make a leaf. Primary keys
-- of delivery_queue and events.
with vanished as (
  delete from delivery_queue q
  where q.ctid = any(array(
      select (select d.ctid from delivery_queue d where d.tenant_id = u.tenant_id and d.delivery_id = u.delivery_id)
      from rows from (unnest(@tenant_ids::uuid[]), unnest(@delivery_ids::uuid[])) as u(tenant_id, delivery_id)))
    and q.lease_owner = @node_id::uuid
    and not exists (select from events e where e.tenant_id = q.tenant_id and e.event_id = q.event_id)
  returning q.tenant_id, q.delivery_id, q.event_id, q.destination_id, q.attempts
)
insert into cancellations (tenant_id, delivery_id, event_id, destination_id, attempts, reason)
select v.tenant_id, v.delivery_id, v.event_id, v.destination_id, v.attempts, 'its event was removed'
from vanished v where v.destination_id is not null;
