-- Tenants as operators manage them: the operator's role and keys, the audit log, and the erasure of a tenant.

-- +goose Up

-- What an operator's request may do beyond one tenant: make tenants, change them, and write down that it did. For all else
-- it binds itself to one tenant, like any other request.
-- +goose StatementBegin
do $$
begin
  if not exists (select from pg_roles where rolname = 'kapsel_operator') then
    create role kapsel_operator nologin;
  end if;
exception when duplicate_object or unique_violation then
  null; -- another database of this cluster made it at the same moment
end
$$;
-- +goose StatementEnd

-- +goose StatementBegin
do $$
begin
  grant kapsel_operator to current_user;
exception when insufficient_privilege then
  if not pg_has_role('kapsel_operator', 'member') then -- see version 1
    raise;
  end if;
end
$$;
-- +goose StatementEnd

-- The operator's keys stand in api_keys like any other, under a tenant that has nothing else: the smallest UUIDv7. Its row is
-- made with the first of them.
create function kapsel_operator_tenant() returns uuid
  language sql immutable parallel safe
  return '00000000-0000-7000-8000-000000000000'::uuid;

-- A tenant's key can never be one of the operator, nor the other way round, whatever made it.
alter table api_keys add constraint api_keys_operator
  check (('operator' = any(scopes)) = (tenant_id = kapsel_operator_tenant()));

-- Audit log -----------------------------------------------------------------------------------------------------------

-- Who changed what, when, from where; written in the transaction of the change. Append-only. Never a secret or a payload. No
-- foreign key: entries outlive what they are about.
create table audit_entries (
  tenant_id       uuid not null,
  entry_id        uuid not null,
  created_at      timestamptz not null default now(),
  actor           text not null,            -- an API key's id (key_…), 'operator' or 'system'
  actor_key       uuid,                     -- the API key, the operator's too; NULL: the system, or the command line
  action          text not null,            -- the rpc's name, or the system's action
  resource_id     text not null,            -- as spelled at the edge
  detail          text not null,
  source_address  text not null,            -- '' for the system
  primary key (tenant_id, entry_id)
);
create index audit_entries_resource on audit_entries (tenant_id, resource_id, entry_id);

-- +goose StatementBegin
create function kapsel_audit_append_only() returns trigger language plpgsql as $$
begin
  raise exception 'the audit log is append-only' using errcode = 'integrity_constraint_violation';
end
$$;
-- +goose StatementEnd
create trigger audit_entries_append_only before update or delete or truncate on audit_entries
  for each statement execute function kapsel_audit_append_only();

-- Deletion ------------------------------------------------------------------------------------------------------------

-- A deleted tenant's row stays, so that its id and its audit log have a place.
alter table tenants add column deleted_at timestamptz;  -- when DeleteTenant was called
alter table tenants add column erased_at timestamptz;   -- when the last of its data was gone

-- Change notices ------------------------------------------------------------------------------------------------------

-- What ends a key: nodes forget what they know of keys. Not the time of last use, which is written all the time; and routes
-- do not depend on keys.
drop trigger notify_routes on api_keys;
-- +goose StatementBegin
create function kapsel_notify_api_keys() returns trigger language plpgsql as $$
begin
  perform pg_notify('kapsel_api_keys', tg_table_name);
  return null;
end
$$;
-- +goose StatementEnd
create trigger notify_api_keys after update of scopes, expires_at, revoked_at or delete on api_keys
  for each statement execute function kapsel_notify_api_keys();
create trigger notify_api_keys after update of state or delete on tenants
  for each statement execute function kapsel_notify_api_keys();

-- Rights --------------------------------------------------------------------------------------------------------------

alter table audit_entries enable row level security;
alter table audit_entries force row level security;
create policy tenant on audit_entries to kapsel_tenant using (tenant_id = kapsel_current_tenant())
  with check (tenant_id = kapsel_current_tenant());
create policy engine on audit_entries to kapsel_engine using (true) with check (true);
grant select, insert on audit_entries to kapsel_tenant, kapsel_engine;

create policy operator on tenants to kapsel_operator using (true) with check (true);
create policy operator_reads on api_keys for select to kapsel_operator using (true);
create policy operator_revokes on api_keys for update to kapsel_operator using (true) with check (true);
create policy operator on erasures for insert to kapsel_operator with check (true);
create policy operator on audit_entries for insert to kapsel_operator with check (true);
-- +goose StatementBegin
do $$
begin
  execute format('grant usage on schema %I to kapsel_operator', current_schema());
end
$$;
-- +goose StatementEnd
grant select, insert, update on tenants to kapsel_operator;
grant select (tenant_id, key_id, revoked_at) on api_keys to kapsel_operator;
grant update (revoked_at) on api_keys to kapsel_operator;
grant insert on audit_entries to kapsel_operator;
grant insert (tenant_id, event_id, reason) on erasures to kapsel_operator;

-- The last steps of a deletion.
grant delete on replays to kapsel_engine;
grant update (reason) on cancellations to kapsel_engine;

-- A tenant's administrator may rename it.
grant update (display_name, updated_at) on tenants to kapsel_tenant;
