-- name: ProbeQueue :one
-- How deep the queue is, by PostgreSQL's own estimate (it is never counted), and for how long its oldest due delivery waits.
-- What is held of paused or failing destinations is not due. Called by the probe. Index delivery_queue_due.
select
  coalesce(pg_stat_get_live_tuples(to_regclass('delivery_queue')), 0)::bigint as estimated_deliveries,
  coalesce((select extract(epoch from now() - d.due_at) from delivery_queue d where d.due_at <= now() order by d.due_at limit 1), 0)::float8 as oldest_due_seconds;

-- name: ProbePartitions :one
-- How many of the next days, today included, have their partitions, of eight. Called by the probe.
select count(*) as days
from generate_series(0, 7) as u(day)
where to_regclass('events_' || to_char((now() at time zone 'UTC')::date + u.day, 'YYYYMMDD')) is not null
  and to_regclass('attempts_' || to_char((now() at time zone 'UTC')::date + u.day, 'YYYYMMDD')) is not null;

-- name: ReadOnly :one
-- Whether the database takes no writes now: it is a standby, or somebody has set it so, as some do when a disk is nearly full. Called for /readyz.
select current_setting('transaction_read_only')::boolean as read_only;

-- name: LosesCommitted :one
-- Which settings let the database lose what it has committed, in a list for people; '' when none does. Called at start.
select concat_ws(', ', case when current_setting('fsync') = 'off' then 'fsync' end,
  case when current_setting('full_page_writes') = 'off' then 'full_page_writes' end,
  case when current_setting('synchronous_commit') = 'off' then 'synchronous_commit' end)::text as settings;
