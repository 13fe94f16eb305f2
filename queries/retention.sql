-- Enforcing retention. Called by retention.Keeper, as the engine. Nothing here needs to be done by one node alone: a step that
-- two nodes make at once is made once.

-- name: DatabaseTime :one
-- What is old is decided by the database's clock: a node's own may be wrong by years.
select now()::timestamptz;

-- name: ListRetentions :many
-- Tenants that keep payloads for another time than the server's default, and for how long. Few.
select tenant_id, payload_retention_seconds::bigint as seconds from tenants
where payload_retention_seconds is not null and payload_retention_seconds <> @default_seconds::bigint;

-- name: AdvanceHorizon :exec
-- Says that events of a tenant (zero: of all without a row of their own) before a moment may go. A tenant that had none of
-- its own starts from the one of all.
insert into retention_horizons as h (tenant_id, events_from)
values (@tenant_id, greatest(@events_from::timestamptz, kapsel_events_from(@tenant_id::uuid)))
on conflict (tenant_id) do update set events_from = excluded.events_from where excluded.events_from > h.events_from;

-- name: ForgetHorizons :exec
-- Tenants that keep payloads for the default time again follow the horizon of all, once that has passed theirs.
delete from retention_horizons h
where h.tenant_id <> '00000000-0000-0000-0000-000000000000' and h.tenant_id <> all(@others::uuid[])
  and h.events_from <= (select a.events_from from retention_horizons a where a.tenant_id = '00000000-0000-0000-0000-000000000000');

-- name: EventDays :many
-- Days of which there is a partition of events, and of attempts.
select kapsel_partition_days('events')::date as day;

-- name: AttemptDays :many
select kapsel_partition_days('attempts')::date as day;

-- name: DropEvents :one
select kapsel_drop_events(@day::date, @keepers::uuid[])::text as done;

-- name: DropAttempts :one
select kapsel_drop_attempts(@day::date)::boolean as dropped;

-- name: DeleteEvents :one
select kapsel_delete_events(@tenant_id::uuid, @max_rows::integer)::integer as deleted;

-- name: DeleteDefaultEvents :one
-- Events that came while their day had no partition.
select kapsel_delete_default_events(@max_rows::integer)::integer as deleted;

-- name: RetainedTenants :many
-- All tenants, a page at a time. Primary key.
select tenant_id from tenants where tenant_id > @after_tenant::uuid order by tenant_id limit @max_rows::integer;

-- name: DeleteOldRedeliveries :execrows
-- Those of events that are gone. Index redeliveries_event.
delete from redeliveries r where r.ctid = any(array(
  select d.ctid from redeliveries d
  where d.tenant_id = @tenant_id::uuid and d.event_id < kapsel_uuid_floor(kapsel_events_from(@tenant_id::uuid))
  order by d.event_id limit @max_rows::integer));

-- name: DeleteClosed :one
-- Dead letters and cancellations whose attempts went with their days. Indexes dead_letters_time and cancellations_time.
select kapsel_delete_closed(@tenant_id::uuid, @max_rows::integer)::integer as deleted;

-- name: DeleteAudit :one
-- Audit entries of before the ledger. Primary key.
select kapsel_delete_audit(@tenant_id::uuid, @max_rows::integer)::integer as deleted;
