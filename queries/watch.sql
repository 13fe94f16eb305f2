-- What has changed of a tenant's events since a snapshot, for streams of events (internal/watch). A row is new to a stream when the
-- transaction that wrote it (xmin) was not visible in the snapshot that the stream was told of last; the ages leave out, cheaply,
-- what is older than that snapshot's oldest transaction, and the caller looks at the rest exactly. Nothing is written for it, and
-- intake, delivery and recorder know nothing of it.

-- name: WatchTip :one
-- Where the ledger and the database's transactions are.
select pg_current_snapshot()::text as snapshot, clock_timestamp()::timestamptz as at,
  (select l.next_index from logs l where l.log_id = @log_id)::bigint as next_index;

-- name: ChangedAnchors :many
-- Events and redeliveries that are new, by their ids, which carry the time. Primary keys of events and redeliveries, from a time
-- before the snapshot on that leaves room for commits out of that order.
select u.anchor::uuid as anchor, u.event_id::uuid as event_id, u.xid::text as xid from (
  (select e.event_id as anchor, e.event_id, e.xmin::text as xid from events e
    where e.tenant_id = @tenant_id and e.event_id > @after::uuid and age(e.xmin) <= age(cast(@oldest::text as xid))
    order by e.event_id limit @max_rows::integer)
  union all
  (select r.delivery_id, r.event_id, r.xmin::text from redeliveries r
    where r.tenant_id = @tenant_id and r.delivery_id > @after::uuid and age(r.xmin) <= age(cast(@oldest::text as xid))
    order by r.delivery_id limit @max_rows::integer)
) u order by u.anchor limit @max_rows::integer;

-- name: ChangedByLeaf :many
-- Events of which something was delivered or given up: a failed attempt alone changes no state. Primary key of attempts.
select distinct a.event_id from attempts a
where a.log_id = @log_id and a.leaf_index >= @from_index and a.leaf_index < @to_index and a.recorded_at >= @since
  and a.tenant_id = @tenant_id and a.outcome in (0, 1);

-- name: ChangedByCancellation :many
-- Primary key of cancellations, all of the tenant's: there are few.
select c.event_id, c.xmin::text as xid from cancellations c
where c.tenant_id = @tenant_id and c.cancelled_at >= @since and age(c.xmin) <= age(cast(@oldest::text as xid));

-- name: ChangedTenants :many
-- Which of some tenants one of the queries above may find something for. What is new is looked for from the end: there it is.
select t.tenant_id::uuid as tenant_id from unnest(@tenant_ids::uuid[]) as t(tenant_id)
where (select true from events e where e.tenant_id = t.tenant_id and e.event_id > @after::uuid and age(e.xmin) <= age(cast(@oldest::text as xid))
    order by e.event_id desc limit 1)
  or exists (select from redeliveries r where r.tenant_id = t.tenant_id and r.delivery_id > @after::uuid and age(r.xmin) <= age(cast(@oldest::text as xid)))
  or exists (select from cancellations c where c.tenant_id = t.tenant_id and c.cancelled_at >= @since and age(c.xmin) <= age(cast(@oldest::text as xid)))
  or t.tenant_id in (select a.tenant_id from attempts a
    where a.log_id = @log_id and a.leaf_index >= @from_index and a.leaf_index < @to_index and a.recorded_at >= @since and a.outcome in (0, 1));

-- name: EventsByID :many
-- Without headers and payload. Primary key of events.
select event_id, tenant_id, endpoint_id, received_at, content_type, event_type, dedup_key, source_address, verification, defect, erased,
  length(body)::integer as body_bytes, sha256(body) as body_sha256
from events where tenant_id = @tenant_id and event_id = any(@event_ids::uuid[]);
