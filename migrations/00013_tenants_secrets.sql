-- Values of the headers that a destination adds are sealed like its credentials; a node says which settings it honours; the audit
-- log ends with the ledger.

-- +goose Up

set local lock_timeout = '2s';

-- 'headers' is a JSON array of {"name", "value"}, in the order in which they are added. destinations.headers has their names,
-- each marked as sealed; an element with a value is of an earlier version, and becomes sealed with the destination's next change.
alter table destination_credentials drop constraint destination_credentials_kind_check;
alter table destination_credentials add constraint destination_credentials_kind_check
  check (kind in ('tls_key', 'client_secret', 'headers'));

-- Counts up with each version that honours more of what a destination asks for (delivery.Features). 0: a node of a version
-- that does not know the column.
alter table nodes add column features integer not null default 0;
-- A request that asks for something new of deliveries looks whether all nodes honour it. Of no tenant.
grant select (heartbeat_at, features) on nodes to kapsel_tenant;

-- The audit log is kept for as long as the ledger, and until then append-only for everybody, its owner included.
drop trigger audit_entries_append_only on audit_entries;
create trigger audit_entries_append_only before update or truncate on audit_entries
  for each statement execute function kapsel_audit_append_only();

-- Entries before this went, or may go, with the attempts of their day. NULL: none.
create function kapsel_audit_from() returns timestamptz
  language sql stable parallel safe
  return (select min(d) from kapsel_partition_days('attempts') d)::timestamp at time zone 'UTC' - interval '1 day';

-- +goose StatementBegin
create function kapsel_audit_kept() returns trigger language plpgsql as $$
begin
  if exists (select from gone where created_at >= coalesce(kapsel_audit_from(), '-infinity')) then
    raise exception 'the audit log is append-only for as long as the ledger is kept' using errcode = 'integrity_constraint_violation';
  end if;
  return null;
end
$$;

-- Deletes a tenant's entries of before the ledger, at most so many. Runs as the owner: the engine has no right to it.
create function kapsel_delete_audit(of_tenant uuid, max_rows integer) returns integer
  language plpgsql security definer set search_path from current as $$
declare
  audit_from timestamptz := kapsel_audit_from();
  n integer;
begin
  delete from audit_entries e using (
    select a.entry_id from audit_entries a
    where a.tenant_id = of_tenant and a.entry_id < kapsel_uuid_floor(audit_from) and a.created_at < audit_from
    order by a.entry_id limit max_rows) old
  where e.tenant_id = of_tenant and e.entry_id = old.entry_id;
  get diagnostics n = row_count;
  return n;
end
$$;
-- +goose StatementEnd
create trigger audit_entries_kept after delete on audit_entries
  referencing old table as gone for each statement execute function kapsel_audit_kept();
revoke all on function kapsel_delete_audit(uuid, integer) from public;
grant execute on function kapsel_delete_audit(uuid, integer) to kapsel_engine;
