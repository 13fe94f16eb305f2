-- Making partitions holds up nobody, and rows that came before their partition are no obstacle.

-- +goose Up

-- Makes the partition of one day, if it is missing. Rows of that day that are in the default partition go over into it, as
-- long as it is small: a node's clock was wrong for a moment. With many, after an outage of all that make partitions, the day
-- is left where it is, since copying it would hold up intake. Runs as its caller, the owner.
-- +goose StatementBegin
create function kapsel_make_partition(parent text, day date, key text, lower_bound text, upper_bound text) returns boolean
  language plpgsql set search_path from current as $$
declare
  name name := parent || '_' || to_char(day, 'YYYYMMDD');
  rest name := parent || '_default';
  much boolean;
  early boolean;
begin
  if to_regclass(name) is not null then
    return false;
  end if;
  much := pg_total_relation_size(rest::regclass) > 64 * 1024 * 1024;
  if much and day <= (now() at time zone 'UTC')::date then
    return false; -- rows of it are coming in there: not to be looked for each minute
  end if;
  execute format('select exists (select from %I where %I >= %L and %I < %L)', rest, key, lower_bound, key, upper_bound) into early;
  if much and early then
    return false;
  end if;
  -- Of those who wait for this lock later nobody gets in between.
  execute format('lock table %I in access exclusive mode', parent);
  if to_regclass(name) is not null then
    return false;
  end if;
  execute format('create table %I (like %I including all)', name, parent);
  if early then
    if parent = 'attempts' then -- which is append-only: its rows move as they are
      execute format('alter table %I disable trigger attempts_append_only', rest);
    end if;
    execute format('with early as (delete from %I where %I >= %L and %I < %L returning *) insert into %I select * from early',
      rest, key, lower_bound, key, upper_bound, name);
    if parent = 'attempts' then
      execute format('alter table %I enable trigger attempts_append_only', rest);
    end if;
  end if;
  execute format('alter table %I attach partition %I for values from (%L) to (%L)', parent, name, lower_bound, upper_bound);
  return true;
end
$$;

-- As before, but for two things: intake, which waits behind a lock that this waits for, is held up by a moment only, when
-- somebody reads a table for hours (pg_dump, fsck); it fails then, and is called again a minute later. And see above.
create or replace function kapsel_make_partitions(first_day date, last_day date) returns integer
  language plpgsql security definer set search_path from current set lock_timeout = '300ms' as $$
declare
  day date := first_day;
  lower_bound timestamptz;
  upper_bound timestamptz;
  made integer := 0;
begin
  perform pg_advisory_xact_lock(hashtext('kapsel_make_partitions'));
  while day <= last_day loop
    lower_bound := day::timestamp at time zone 'UTC';
    upper_bound := (day + 1)::timestamp at time zone 'UTC';
    if kapsel_make_partition('events', day, 'event_id', kapsel_uuid_floor(lower_bound)::text, kapsel_uuid_floor(upper_bound)::text) then
      execute format('alter table %I set (toast_tuple_target = 4080)', 'events_' || to_char(day, 'YYYYMMDD'));
      made := made + 1;
    end if;
    if kapsel_make_partition('attempts', day, 'recorded_at', lower_bound::text, upper_bound::text) then
      made := made + 1;
    end if;
    day := day + 1;
  end loop;
  return made;
end
$$;

-- Deletes events in the default partition that are older than their tenants keep them, at most so many. One that is still to be
-- delivered stays: it may be of a node whose clock was behind. First deliveries have their ids within seconds of their event's.
-- Runs as the owner: the engine has no right to it. Mostly there is nothing in it.
create function kapsel_delete_default_events(max_rows integer) returns integer
  language plpgsql security definer set search_path from current as $$
declare
  n integer;
begin
  delete from events_default e where e.ctid = any(array(
    select d.ctid from events_default d where d.event_id < kapsel_uuid_floor(kapsel_events_from(d.tenant_id))
      and not exists (select from delivery_queue q where q.tenant_id = d.tenant_id and q.event_id = d.event_id and q.delivery_id >= d.event_id
        and q.delivery_id < kapsel_uuid_floor(to_timestamp(('x' || translate(left(d.event_id::text, 13), '-', ''))::bit(48)::bigint / 1000.0) + interval '10 seconds'))
    limit max_rows));
  get diagnostics n = row_count;
  return n;
end
$$;
-- +goose StatementEnd
revoke all on function kapsel_make_partition(text, date, text, text, text), kapsel_delete_default_events(integer) from public;
grant execute on function kapsel_delete_default_events(integer) to kapsel_engine;
