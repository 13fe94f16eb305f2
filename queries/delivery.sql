-- name: ClaimDue :many
-- The claimer's only query for work: rows that are due, whoever held them before. Index delivery_queue_due. Rows that
-- another node is claiming are skipped; so are those of full or inactive destinations, unless a lost node's attempt is to
-- be recorded: lost_owner is the node whose lease ran out, NULL for an ordinary retry. Whoever held the row only to record that
-- and was lost too, sent nothing. Of what is ordered by a key only the first is taken (index delivery_queue_order).
update delivery_queue q
set lost_owner = coalesce(q.lost_owner, q.lease_owner), lease_owner = @node_id::uuid,
  due_at = now() + make_interval(secs => @lease_seconds::float8)
where q.ctid = any(array(
  select d.ctid from delivery_queue d
  where d.due_at <= now()
    and (d.destination_id is null or d.lease_owner is not null or d.lost_owner is not null
      or d.destination_id <> all(@full_destination_ids::uuid[]))
    and (d.order_key is null or d.lease_owner is not null or d.lost_owner is not null or not exists (
      select from delivery_queue o where o.destination_id = d.destination_id and o.order_key = d.order_key
        and (o.order_seq, o.delivery_id) < (d.order_seq, d.delivery_id)))
  order by d.due_at
  limit @max_rows::integer
  for update skip locked))
returning q.tenant_id, q.delivery_id, q.event_id, q.endpoint_id, q.destination_id, q.attempts, q.lost_owner, q.order_key;

-- name: ClaimTurns :many
-- Takes the first delivery of each of some keys, if it waits for its turn and none of the key is under way: one that was
-- committed late may come before one that is being sent. Those are looked for among the first twenty, as far behind as a
-- commit can be. Called by the claimer. Index delivery_queue_order.
update delivery_queue q
set lease_owner = @node_id::uuid, due_at = now() + make_interval(secs => @lease_seconds::float8)
where q.ctid = any(array(
    select (select d.ctid from delivery_queue d where d.destination_id = u.destination_id and d.order_key = u.order_key
      order by d.order_seq, d.delivery_id limit 1)
    from rows from (unnest(@destination_ids::uuid[]), unnest(@order_keys::bytea[])) as u(destination_id, order_key)
    where not exists (
      select from (select d.lease_owner from delivery_queue d where d.destination_id = u.destination_id and d.order_key = u.order_key
        order by d.order_seq, d.delivery_id limit 20) first where first.lease_owner is not null)))
  and q.lease_owner is null and q.lost_owner is null and q.due_at = @turn_moment::timestamptz
returning q.tenant_id, q.delivery_id, q.event_id, q.endpoint_id, q.destination_id, q.attempts, q.lost_owner, q.order_key;

-- name: HoldTurns :execrows
-- Has the first delivery of each of some keys held that waits for its turn, like what is due (HoldDeliveries): their destinations'
-- circuit breakers are open, and it may be all that a probe can be made with. Called by the claimer. Index delivery_queue_order.
update delivery_queue q
set due_at = (
  select u.held_until from rows from (unnest(@destination_ids::uuid[]), unnest(@held_untils::timestamptz[])) as u(destination_id, held_until)
  where u.destination_id = q.destination_id limit 1)
where q.ctid = any(array(
    select (select d.ctid from delivery_queue d where d.destination_id = u.destination_id and d.order_key = u.order_key
      order by d.order_seq, d.delivery_id limit 1)
    from rows from (unnest(@destination_ids::uuid[]), unnest(@order_keys::bytea[])) as u(destination_id, order_key)))
  and q.lease_owner is null and q.lost_owner is null and q.due_at = @turn_moment::timestamptz;

-- name: OrderKeys :many
-- A page of the keys that anything is ordered by, and whether the first of each waits for its turn. Called by the claimer,
-- for what a lost node or a cancellation left behind. Walks index delivery_queue_order from key to key.
with recursive head as (
  (select d.destination_id, d.order_key, d.due_at, d.lease_owner from delivery_queue d
    where d.order_key is not null and (d.destination_id, d.order_key) > (@after_destination_id::uuid, @after_order_key::bytea)
    order by d.destination_id, d.order_key, d.order_seq, d.delivery_id limit 1)
  union all
  select n.destination_id, n.order_key, n.due_at, n.lease_owner from head h cross join lateral (
    select d.destination_id, d.order_key, d.due_at, d.lease_owner from delivery_queue d
    where d.order_key is not null and (d.destination_id, d.order_key) > (h.destination_id, h.order_key)
    order by d.destination_id, d.order_key, d.order_seq, d.delivery_id limit 1) n
)
select h.destination_id::uuid as destination_id, h.order_key::bytea as order_key,
  (h.lease_owner is null and h.due_at = @turn_moment::timestamptz)::boolean as waits
from head h limit @max_keys::integer;

-- name: LoadEvents :many
-- What claimed deliveries carry, in the order asked, up to max_bytes of payload (at least one): a claim of many large
-- payloads does not fill the memory. Primary key of events, one partition an event.
select e.tenant_id, e.event_id, e.received_at, e.body, e.headers, e.content_type, e.event_type, e.verification, e.defect
from (
  select u.tenant_id, u.event_id, u.position, sum(length(e.body)) over (order by u.position) as total_bytes
  from rows from (unnest(@tenant_ids::uuid[]), unnest(@event_ids::uuid[])) with ordinality as u(tenant_id, event_id, position)
  join events e on e.tenant_id = u.tenant_id and e.event_id = u.event_id and not e.erased
) u
join events e on e.tenant_id = u.tenant_id and e.event_id = u.event_id and not e.erased
where u.total_bytes <= @max_bytes::bigint or u.position = 1
order by u.position;

-- name: ReleaseLeases :execrows
-- Gives back what was claimed but not sent, due at once, or at due_at where that is given. lost_owner stays, so that a lost node's attempt is still recorded
-- by whoever claims the row next. What was cancelled in the meantime was not sent either. A node that was taken for dead may have claimed the
-- same delivery again, for its next attempt, and be sending it: that lease stays (attempts). Primary keys.
with unsent as (
  delete from cancelled_leases c
  where c.lease_owner = @node_id::uuid and (c.tenant_id, c.delivery_id, c.attempts) in (
    select u.tenant_id, u.delivery_id, u.attempts
    from rows from (unnest(@tenant_ids::uuid[]), unnest(@delivery_ids::uuid[]), unnest(@attempts::integer[])) as u(tenant_id, delivery_id, attempts))
)
update delivery_queue q
set lease_owner = null, due_at = coalesce(sqlc.narg(due_at)::timestamptz, now())
where q.ctid = any(array(
    select (select d.ctid from delivery_queue d where d.tenant_id = u.tenant_id and d.delivery_id = u.delivery_id and d.attempts = u.attempts)
    from rows from (unnest(@tenant_ids::uuid[]), unnest(@delivery_ids::uuid[]), unnest(@attempts::integer[])) as u(tenant_id, delivery_id, attempts)))
  and q.lease_owner = @node_id::uuid;

-- name: ExpireLeasesOfDeadNodes :execrows
-- Makes the leases of nodes without a recent heartbeat due now, so that the next claim takes them over. A leased row is
-- due within the lease's length, so index delivery_queue_due bounds what is read. The same for leases of what was cancelled.
with cancelled as (
  update cancelled_leases c
  set lease_ends_at = now()
  where c.lease_ends_at > now() and c.lease_owner in (
    select n.node_id from nodes n where n.node_id <> @node_id::uuid and n.heartbeat_at < now() - make_interval(secs => @dead_after_seconds::float8))
)
update delivery_queue q
set due_at = now()
where q.due_at > now() and q.due_at <= now() + make_interval(secs => @lease_seconds::float8)
  and q.lease_owner in (
    select n.node_id from nodes n where n.node_id <> @node_id::uuid and n.heartbeat_at < now() - make_interval(secs => @dead_after_seconds::float8));

-- name: Heartbeat :one
-- Returns how many nodes are alive, and how many of them take webhooks in and deliver, the one that beats included; and what
-- time it is to the database.
with beat as (
  insert into nodes (node_id, name, version, roles, features) values (@node_id, @name, @version, @roles, @features)
  on conflict (node_id) do update set heartbeat_at = now()
)
select (1 + count(*))::bigint as alive,
  (count(*) filter (where 'ingest' = any(n.roles)) + ('ingest' = any(@roles))::integer)::bigint as ingesting,
  (count(*) filter (where 'deliver' = any(n.roles)) + ('deliver' = any(@roles))::integer)::bigint as delivering,
  clock_timestamp()::timestamptz as database_time
from nodes n
where n.node_id <> @node_id and n.heartbeat_at >= now() - make_interval(secs => @dead_after_seconds::float8);

-- name: RemoveNode :execrows
-- Forgets a node that stops, unless it still has leases: those are taken over from dead nodes only. Index
-- delivery_queue_due, as in ExpireLeasesOfDeadNodes.
delete from nodes n
where n.node_id = @node_id::uuid and not exists (
  select from delivery_queue q
  where q.due_at > now() and q.due_at <= now() + make_interval(secs => @lease_seconds::float8) and q.lease_owner = @node_id::uuid);

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

-- name: HoldOverflow :execrows
-- Puts due rows of active destinations off whose lanes are full, but the first keep_rows of them, like HoldDeliveries: so a
-- claim for the others wades through no more than that. Looks at the first page_rows due rows. Called by the holder.
update delivery_queue q
set due_at = (
  select u.held_until from rows from (unnest(@destination_ids::uuid[]), unnest(@held_untils::timestamptz[])) as u(destination_id, held_until)
  where u.destination_id = q.destination_id limit 1)
where q.ctid = any(array(
  select h.ctid from delivery_queue h
  where h.ctid = any(array(select d.ctid from delivery_queue d where d.due_at <= now() order by d.due_at limit @page_rows::integer))
    and h.due_at <= now() and h.lease_owner is null and h.lost_owner is null and h.destination_id = any(@destination_ids::uuid[])
  order by h.due_at offset @keep_rows::integer
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

-- name: CancelVanished :execrows
-- Ends claimed deliveries whose event is no longer there: without it they can neither be sent nor make a leaf. Primary keys
-- of delivery_queue and events.
with vanished as (
  delete from delivery_queue q
  where q.ctid = any(array(
      select (select d.ctid from delivery_queue d where d.tenant_id = u.tenant_id and d.delivery_id = u.delivery_id)
      from rows from (unnest(@tenant_ids::uuid[]), unnest(@delivery_ids::uuid[])) as u(tenant_id, delivery_id)))
    and q.lease_owner = @node_id::uuid
    and not exists (select from events e where e.tenant_id = q.tenant_id and e.event_id = q.event_id and not e.erased)
  returning q.tenant_id, q.delivery_id, q.event_id, q.destination_id, q.attempts
)
insert into cancellations (tenant_id, delivery_id, event_id, destination_id, attempts, reason)
select v.tenant_id, v.delivery_id, v.event_id, v.destination_id, v.attempts, 'its event was removed'
from vanished v where v.destination_id is not null;
