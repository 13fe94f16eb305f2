-- Usage and quotas of tenants. A day is a number here: days since 1970-01-01 (UTC).

-- name: AddUsage :many
-- What a node has counted since it asked last, a row a tenant and day. Called once a second by each node; the rows must be
-- sorted by tenant and day, so that two nodes cannot deadlock. Returns what was used over all nodes. Primary key. A tenant
-- that is gone gets no row.
insert into tenant_usage as u (tenant_id, day, events, duplicates, refused, payload_bytes, attempts, delivered, dead_lettered)
select t.tenant_id, date '1970-01-01' + n.day_number, n.events, n.duplicates, n.refused, n.payload_bytes, n.attempts,
  n.delivered, n.dead_lettered
from rows from (
  unnest(@tenant_ids::uuid[]), unnest(@day_numbers::integer[]), unnest(@events::bigint[]), unnest(@duplicates::bigint[]),
  unnest(@refused::bigint[]), unnest(@payload_bytes::bigint[]), unnest(@attempts::bigint[]), unnest(@delivered::bigint[]),
  unnest(@dead_lettered::bigint[])
) as n(tenant_id, day_number, events, duplicates, refused, payload_bytes, attempts, delivered, dead_lettered)
join tenants t on t.tenant_id = n.tenant_id
order by t.tenant_id, n.day_number
on conflict (tenant_id, day) do update set
  events = u.events + excluded.events, duplicates = u.duplicates + excluded.duplicates,
  refused = u.refused + excluded.refused, payload_bytes = u.payload_bytes + excluded.payload_bytes,
  attempts = u.attempts + excluded.attempts, delivered = u.delivered + excluded.delivered,
  dead_lettered = u.dead_lettered + excluded.dead_lettered
returning u.tenant_id, (u.day - date '1970-01-01')::integer as day_number, u.events, u.duplicates, u.refused, u.payload_bytes;

-- name: UsageOfDay :many
-- What tenants with a quota have used on a day, for a node that starts. Index tenant_usage_day.
select u.tenant_id, u.events, u.duplicates, u.refused, u.payload_bytes
from tenant_usage u join tenants t on t.tenant_id = u.tenant_id
where u.day = date '1970-01-01' + @day_number::integer
  and (t.ingest_per_day is not null or t.ingest_bytes_per_day is not null);

-- name: ListUsage :many
-- A tenant's days, the newest first. Primary key.
select (day - date '1970-01-01')::integer as day_number, events, duplicates, refused, payload_bytes, attempts, delivered, dead_lettered
from tenant_usage
where tenant_id = @tenant_id and day between date '1970-01-01' + @first_day::integer and date '1970-01-01' + @last_day::integer
order by day desc;

-- name: DeleteOldUsage :execrows
-- What is older than so many days, by the database's clock: a node's may be wrong. Called by maintenance. Index tenant_usage_day.
delete from tenant_usage where day < (now() at time zone 'UTC')::date - @days::integer;

-- name: LockTenantQuota :exec
-- First of each creation that a quota bounds, so that those of one tenant take turns: what TenantQuota then counts stays
-- true until the end of the transaction. The second number keeps the lock apart from others that are named by an id.
select pg_advisory_xact_lock(uuid_hash_extended(@tenant_id::uuid, 7));

-- name: TenantQuota :one
-- What a tenant may have, and has.
select t.max_endpoints, t.max_destinations,
  (select count(*) from endpoints e where e.tenant_id = t.tenant_id) as endpoints,
  (select count(*) from destinations d where d.tenant_id = t.tenant_id) as destinations
from tenants t where t.tenant_id = @tenant_id;
