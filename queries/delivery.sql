-- name: ClaimDue :many
-- The claimer's only query for work: rows that are due, whoever held them before. Index delivery_queue_due. Rows that
-- another node is claiming are skipped; so are those of full or inactive destinations, unless a lost node's attempt is to
-- be recorded. lost_owner is the node whose lease ran out, NULL for an ordinary retry.
with due as (
  select tenant_id, delivery_id, lease_owner
  from delivery_queue
  where due_at <= now()
    and (destination_id is null or lease_owner is not null or destination_id <> all(@full_destination_ids::uuid[]))
  order by due_at
  limit @max_rows::integer
  for update skip locked
)
update delivery_queue q
set lease_owner = @node_id::uuid, due_at = now() + make_interval(secs => @lease_seconds::float8)
from due
where q.tenant_id = due.tenant_id and q.delivery_id = due.delivery_id
returning q.tenant_id, q.delivery_id, q.event_id, q.endpoint_id, q.destination_id, q.attempts, due.lease_owner as lost_owner;

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
-- Gives back what was claimed but not sent, due at once. A row that was taken over from a lost node goes back in that
-- node's name, so that its attempt is still recorded by whoever claims it next. Primary key of delivery_queue.
update delivery_queue q
set lease_owner = nullif(u.lost_owner, '00000000-0000-0000-0000-000000000000'), due_at = now()
from rows from (unnest(@tenant_ids::uuid[]), unnest(@delivery_ids::uuid[]), unnest(@lost_owners::uuid[]))
  as u(tenant_id, delivery_id, lost_owner)
where q.tenant_id = u.tenant_id and q.delivery_id = u.delivery_id and q.lease_owner = @node_id::uuid;

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
