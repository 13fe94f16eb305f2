-- Erasure: an event's payload, and the bytes of leaves, can go for good. What is erased is named by a leaf of its own, in
-- the same transaction; the hashes in the tiles stay, so the tree stays whole.

-- +goose Up

-- Fails rather than hold up intake behind a lock that it waits for.
set local lock_timeout = '2s';

-- The body and headers are gone, and not just empty.
alter table events add column erased boolean not null default false;

-- The duty to erase an event, or a whole tenant, kept when it is done. An attempt that was under way is recorded later,
-- and a leaf can go only when it is sealed: so the eraser looks again until nothing can come any more.
create table erasures (
  tenant_id       uuid not null,            -- no foreign key: outlives its tenant
  event_id        uuid not null,            -- zero: all of the tenant
  reason          text not null,
  requested_at    timestamptz not null default now(),
  look_at         timestamptz not null default now(),
  -- What the log says of the payload, for a lost attempt that is still to be recorded. NULL for a tenant, and at the end.
  payload_sha256  bytea,
  payload_bytes   bigint,
  after_event     uuid not null default '00000000-0000-0000-0000-000000000000',  -- how far a tenant's events are erased
  after_index     bigint not null default -1,   -- and the log's leaves looked through
  finished_at     timestamptz,
  primary key (tenant_id, event_id)
);
create index erasures_due on erasures (look_at) where finished_at is null;

alter table erasures enable row level security;
alter table erasures force row level security;
create policy tenant on erasures to kapsel_tenant using (tenant_id = kapsel_current_tenant()) with check (tenant_id = kapsel_current_tenant());
create policy engine on erasures to kapsel_engine using (true) with check (true);
grant select, insert, update on erasures to kapsel_engine;
grant select on erasures to kapsel_tenant;
-- The eraser cancels what is still to be delivered.
grant insert on cancelled_leases to kapsel_engine;

-- The ledger lets go of bytes in one case only: all of a sealed leaf's at once, and nothing else of its row. The leaf of an
-- erasure cannot go: delivery_id is attempt_id in leaves that are of no delivery.
-- +goose StatementBegin
create or replace function kapsel_append_only() returns trigger language plpgsql as $$
begin
  if tg_op = 'UPDATE' and new.leaf = '' and new.diagnosis = '' and new.response_excerpt = ''
    and (new.log_id, new.leaf_index, new.recorded_at, new.tenant_id, new.attempt_id, new.delivery_id, new.event_id, new.outcome)
      = (old.log_id, old.leaf_index, old.recorded_at, old.tenant_id, old.attempt_id, old.delivery_id, old.event_id, old.outcome)
    and old.delivery_id <> old.attempt_id
    and old.leaf_index < (select s.tree_size from log_sealers s where s.log_id = old.log_id) then
    return new;
  end if;
  raise exception '% is append-only', tg_table_name using errcode = 'integrity_constraint_violation';
end
$$;

-- Erases payloads. Runs as the owner: the engine has no right to change events. Returns how many were there and not erased.
create function kapsel_erase_events(erased_tenant uuid, erased_events uuid[]) returns integer
  language plpgsql security definer set search_path from current as $$
declare
  n integer;
begin
  update events
  set body = '', headers = '', content_type = '', dedup_key = '', source_address = '', erased = true,
    defect = case when defect = '' then '' else 'erased' end
  where tenant_id = erased_tenant and event_id = any(erased_events) and not erased;
  get diagnostics n = row_count;
  update dead_letters set diagnosis = ''
  where tenant_id = erased_tenant and event_id = any(erased_events) and diagnosis <> '';
  return n;
end
$$;

-- Erases leaves and writes the leaf that names them, or does neither. recorded_from and recorded_to are when they were
-- recorded. The row lock on logs is taken last, as the recorder does. Returns the index of the new leaf.
create function kapsel_erase_leaves(log integer, erased_tenant uuid, erased_event uuid, erased_indexes bigint[],
    recorded_from timestamptz, recorded_to timestamptz, erasure_id uuid, erasure_leaf bytea, why text) returns bigint
  language plpgsql security definer set search_path from current as $$
declare
  n integer;
  place bigint;
begin
  update attempts set leaf = '', diagnosis = '', response_excerpt = ''
  where log_id = log and leaf_index = any(erased_indexes) and recorded_at between recorded_from and recorded_to
    and tenant_id = erased_tenant and leaf <> '';
  get diagnostics n = row_count;
  if n <> cardinality(erased_indexes) then
    raise exception 'of % leaves to erase % are there', cardinality(erased_indexes), n using errcode = 'integrity_constraint_violation';
  end if;
  update logs set next_index = next_index + 1 where log_id = log returning next_index - 1 into place;
  insert into attempts (log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id, outcome, leaf, diagnosis,
    response_excerpt)
  values (log, place, now(), erased_tenant, erasure_id, erasure_id, erased_event, 0, erasure_leaf, why, '');
  return place;
end
$$;
-- +goose StatementEnd
revoke all on function kapsel_erase_events(uuid, uuid[]),
  kapsel_erase_leaves(integer, uuid, uuid, bigint[], timestamptz, timestamptz, uuid, bytea, text) from public;
grant execute on function kapsel_erase_events(uuid, uuid[]),
  kapsel_erase_leaves(integer, uuid, uuid, bigint[], timestamptz, timestamptz, uuid, bytea, text) to kapsel_engine;
