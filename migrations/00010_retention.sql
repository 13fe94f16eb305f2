-- Retention: payloads go after days, the ledger after years. Whole days go by DROP of their partition, which costs the same
-- however much was in it; of a day that some tenants keep for longer, their rows are carried over first.

-- +goose Up

-- Fails rather than hold up intake behind a lock that it waits for.
set local lock_timeout = '2s';

-- What has been dropped: events before events_from may be missing. Written before anything goes, and never goes back. The
-- row of tenant zero is for all tenants that have none of their own.
create table retention_horizons (
  tenant_id    uuid primary key,            -- no foreign key: outlives its tenant
  events_from  timestamptz not null
);
alter table retention_horizons enable row level security;
alter table retention_horizons force row level security;
create policy tenant on retention_horizons to kapsel_tenant using (tenant_id = kapsel_current_tenant()) with check (tenant_id = kapsel_current_tenant());
create policy engine on retention_horizons to kapsel_engine using (true) with check (true);
grant select, insert, update, delete on retention_horizons to kapsel_engine;

-- The log's first leaf that is kept: those below went with their days.
alter table logs add column first_index bigint not null default 0;

-- What ends with its event.
grant delete on redeliveries to kapsel_engine;
create index cancellations_time on cancellations (tenant_id, cancelled_at);

-- The bound below which a tenant's events may be missing.
create function kapsel_events_from(tenant uuid) returns timestamptz
  language sql stable parallel safe
  return coalesce(
    (select h.events_from from retention_horizons h where h.tenant_id = tenant),
    (select h.events_from from retention_horizons h where h.tenant_id = '00000000-0000-0000-0000-000000000000'),
    'epoch');

-- The days of a partitioned table that have a partition, the oldest first.
-- +goose StatementBegin
create function kapsel_partition_days(parent regclass) returns setof date
  language sql stable parallel safe as $$
  select to_date(right(c.relname, 8), 'YYYYMMDD') from pg_inherits i join pg_class c on c.oid = i.inhrelid
  where i.inhparent = parent and c.relname ~ '_[0-9]{8}$' order by 1
$$;
-- +goose StatementEnd

-- Drops the events of one day but those of some tenants. Runs as the owner. Intake is held up only while the partition is
-- swapped or dropped, and by at most lock_timeout: then it fails, and is tried again. Returns what it did: 'dropped',
-- 'carried' when rows were kept, 'kept' when there was nothing more to drop.
-- +goose StatementBegin
create function kapsel_drop_events(day date, keepers uuid[]) returns text
  language plpgsql security definer set search_path from current set lock_timeout = '300ms' as $$
declare
  old regclass := to_regclass('events_' || to_char(day, 'YYYYMMDD'));
  kept name := 'events_' || to_char(day, 'YYYYMMDD') || '_kept';
  lower_bound uuid := kapsel_uuid_floor(day::timestamp at time zone 'UTC');
  upper_bound uuid := kapsel_uuid_floor((day + 1)::timestamp at time zone 'UTC');
  -- What a partition was carried over for stands in its comment: with the same tenants there is nothing to do.
  mark text := 'of tenants ' || array_to_string(array(select k from unnest(keepers) k order by k), ' ');
  found boolean;
begin
  if old is null then
    return 'dropped';
  end if;
  if obj_description(old, 'pg_class') = mark then
    return 'kept';
  end if;
  if day >= (now() at time zone 'UTC')::date then
    raise exception 'the day % is not over', day using errcode = 'invalid_parameter_value';
  end if;
  -- Erasure is the only one that writes to a past day: it waits, or this does.
  execute format('lock table %s in share mode', old);
  execute format('select exists (select from %s where tenant_id = any($1))', old) into found using keepers;
  if found then
    execute format('create table %I (like events including all)', kept);
    execute format('alter table %I set (toast_tuple_target = 4080), add check (event_id >= %L and event_id < %L)', kept, lower_bound, upper_bound);
    execute format('insert into %I select * from %s where tenant_id = any($1)', kept, old) using keepers;
    execute format('alter table events detach partition %s', old);
  end if;
  execute format('drop table %s', old);
  if not found then
    return 'dropped';
  end if;
  execute format('alter table %I rename to %I', kept, 'events_' || to_char(day, 'YYYYMMDD'));
  execute format('alter table events attach partition %I for values from (%L) to (%L)',
    'events_' || to_char(day, 'YYYYMMDD'), lower_bound, upper_bound);
  execute format('comment on table %I is %L', 'events_' || to_char(day, 'YYYYMMDD'), mark);
  return 'carried';
end
$$;

-- Deletes events of one tenant, the oldest first, at most so many. Runs as the owner: the engine has no right to it. Only
-- what the tenant's horizon has passed goes.
create function kapsel_delete_events(of_tenant uuid, max_rows integer) returns integer
  language plpgsql security definer set search_path from current as $$
declare
  n integer;
begin
  delete from events e using (
    select d.event_id from events d
    where d.tenant_id = of_tenant and d.event_id < kapsel_uuid_floor(kapsel_events_from(of_tenant))
    order by d.event_id limit max_rows) old
  where e.tenant_id = of_tenant and e.event_id = old.event_id;
  get diagnostics n = row_count;
  return n;
end
$$;

-- Drops one day of the ledger, which must be sealed as a whole. Runs as the owner, since the ledger is append-only for
-- everybody else. Recorder and sealer are held up as intake is in kapsel_drop_events.
create function kapsel_drop_attempts(day date) returns boolean
  language plpgsql security definer set search_path from current set lock_timeout = '300ms' as $$
declare
  old regclass := to_regclass('attempts_' || to_char(day, 'YYYYMMDD'));
  ended record;
begin
  if old is null then
    return false;
  end if;
  if day >= (now() at time zone 'UTC')::date - 1 then
    raise exception 'the day % is too young to drop', day using errcode = 'invalid_parameter_value';
  end if;
  for ended in execute format('select log_id, max(leaf_index) + 1 as next from %s group by log_id', old) loop
    if ended.next > (select s.tree_size from log_sealers s where s.log_id = ended.log_id) then
      raise exception 'leaves of % are not sealed yet', day using errcode = 'object_not_in_prerequisite_state';
    end if;
    update logs set first_index = greatest(first_index, ended.next) where log_id = ended.log_id;
  end loop;
  execute format('drop table %s', old);
  return true;
end
$$;

-- Deletes a tenant's dead letters and cancellations whose attempts went with their days, at most so many of each. Runs as the
-- owner: the engine has no right to it. A day more than the ledger: an attempt that was under way is recorded after them.
create function kapsel_delete_closed(of_tenant uuid, max_rows integer) returns integer
  language plpgsql security definer set search_path from current as $$
declare
  before timestamptz := (select min(d) from kapsel_partition_days('attempts') d)::timestamp at time zone 'UTC' - interval '1 day';
  letters integer;
  others integer;
begin
  delete from dead_letters l where l.ctid = any(array(
    select d.ctid from dead_letters d where d.tenant_id = of_tenant and d.dead_at < before order by d.dead_at limit max_rows));
  get diagnostics letters = row_count;
  delete from cancellations c where c.ctid = any(array(
    select d.ctid from cancellations d where d.tenant_id = of_tenant and d.cancelled_at < before order by d.cancelled_at limit max_rows));
  get diagnostics others = row_count;
  return greatest(letters, others);
end
$$;
-- +goose StatementEnd
revoke all on function kapsel_drop_events(date, uuid[]), kapsel_delete_events(uuid, integer), kapsel_drop_attempts(date),
  kapsel_delete_closed(uuid, integer) from public;
grant execute on function kapsel_drop_events(date, uuid[]), kapsel_delete_events(uuid, integer), kapsel_drop_attempts(date),
  kapsel_delete_closed(uuid, integer) to kapsel_engine;
