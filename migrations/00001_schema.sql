-- The data model. Reading order follows a webhook's way: configuration, events, queue, ledger, log.
--
-- Three rules hold throughout:
--   * tenant_id leads the key of every tenant table, so that the schema can be sharded by tenant. Exceptions are explained.
--   * Row-level security is forced on every tenant table. kapsel_tenant (API requests) sees the rows of the tenant that
--     kapsel.tenant_id names; kapsel_engine (ingest, delivery, recorder, sealer) has policies of its own. Neither has BYPASSRLS.
--   * The hot tables (events, delivery_queue, attempts) have no foreign keys: their rows are written in batches by code
--     that took the ids from the same statement or from the route snapshot, and a check a row would cost more than the row.

-- +goose Up

-- +goose StatementBegin
do $$
begin
  if not exists (select from pg_roles where rolname = 'kapsel_tenant') then
    create role kapsel_tenant nologin;
  end if;
  if not exists (select from pg_roles where rolname = 'kapsel_engine') then
    create role kapsel_engine nologin;
  end if;
exception when duplicate_object or unique_violation then
  null; -- another database of this cluster made them at the same moment
end
$$;
-- +goose StatementEnd

-- +goose StatementBegin
do $$
begin
  grant kapsel_tenant, kapsel_engine to current_user;
exception when insufficient_privilege then
  -- Enough if whoever administers the server has made and granted them.
  if not (pg_has_role('kapsel_tenant', 'member') and pg_has_role('kapsel_engine', 'member')) then
    raise;
  end if;
end
$$;
-- +goose StatementEnd

-- The tenant that this transaction acts for. NULL, and so no row, when it was not set.
create function kapsel_current_tenant() returns uuid
  language sql stable parallel safe
  return nullif(current_setting('kapsel.tenant_id', true), '')::uuid;

-- The smallest UUIDv7 of a moment: the partition bounds of tables whose ids carry the time.
create function kapsel_uuid_floor(moment timestamptz) returns uuid
  language sql immutable parallel safe
  return (lpad(to_hex((extract(epoch from moment) * 1000)::bigint), 12, '0') || '00000000000000000000')::uuid;

-- Configuration -------------------------------------------------------------------------------------------------------

create table tenants (
  tenant_id          uuid primary key,
  display_name       text not null,
  state              text not null default 'active' check (state in ('active', 'suspended', 'deleting')),
  ingest_per_second  integer check (ingest_per_second > 0),   -- NULL: no limit
  ingest_burst       integer check (ingest_burst > 0),
  ingest_per_day     bigint check (ingest_per_day > 0),
  max_endpoints      integer check (max_endpoints > 0),
  max_destinations   integer check (max_destinations > 0),
  created_at         timestamptz not null default now(),
  updated_at         timestamptz not null default now()
);

create table api_keys (
  tenant_id     uuid not null references tenants,
  key_id        uuid not null,
  display_name  text not null,
  hint          text not null,              -- the key's first characters, so that people recognise it
  secret_hash   bytea not null,             -- SHA-256 of the whole key: keys are random, so no slow hash is needed
  scopes        text[] not null,
  created_at    timestamptz not null default now(),
  expires_at    timestamptz,
  last_used_at  timestamptz,
  revoked_at    timestamptz,
  primary key (tenant_id, key_id)
);
-- Authentication looks a key up before the tenant is known.
create unique index api_keys_secret_hash on api_keys (secret_hash);

create table endpoints (
  tenant_id             uuid not null references tenants,
  endpoint_id           uuid not null,
  display_name          text not null,
  state                 text not null default 'enabled' check (state in ('enabled', 'disabled')),
  verification          jsonb not null,     -- kapsel.v1.Verification as JSON; never a secret
  payload_format        text not null check (payload_format in ('any', 'json')),
  json_schema           text not null default '',
  max_body_bytes        integer not null check (max_body_bytes between 1 and 10485760),
  deduplication         jsonb not null,     -- kapsel.v1.Deduplication as JSON
  event_type_source     jsonb not null,     -- kapsel.v1.EventTypeSource as JSON
  created_at            timestamptz not null default now(),
  updated_at            timestamptz not null default now(),
  primary key (tenant_id, endpoint_id)
);
create unique index endpoints_id on endpoints (endpoint_id);

create table endpoint_secrets (
  tenant_id    uuid not null,
  endpoint_id  uuid not null,
  secret_id    uuid not null,
  ciphertext   bytea not null,
  created_at   timestamptz not null default now(),
  expires_at   timestamptz,                 -- end of the overlap after a rotation; NULL: the current secret
  primary key (tenant_id, endpoint_id, secret_id),
  foreign key (tenant_id, endpoint_id) references endpoints on delete cascade
);

create table destinations (
  tenant_id           uuid not null,
  destination_id      uuid not null,
  endpoint_id         uuid not null,
  display_name        text not null,
  url                 text not null,
  state               text not null default 'enabled' check (state in ('enabled', 'paused', 'disabled')),
  disable_reason      smallint not null default 0,   -- kapsel.v1.DisableReason
  state_detail        text not null default '',
  filter              jsonb not null,       -- kapsel.v1.Filter as JSON, and so on
  signing             jsonb not null,
  retry_policy        jsonb not null,
  ordering            jsonb,
  headers             jsonb not null,       -- static headers added to each request: [{"name", "value"}]
  forwarded_headers   text[] not null default '{}',  -- original headers passed on
  connect_timeout_ms  integer not null check (connect_timeout_ms between 1 and 30000),
  timeout_ms          integer not null check (timeout_ms between 1 and 30000),
  max_in_flight       integer not null check (max_in_flight between 1 and 1000),
  rate_per_second     integer check (rate_per_second > 0),
  created_at          timestamptz not null default now(),
  updated_at          timestamptz not null default now(),
  primary key (tenant_id, destination_id),
  foreign key (tenant_id, endpoint_id) references endpoints
);
create unique index destinations_id on destinations (destination_id);
create index destinations_endpoint on destinations (tenant_id, endpoint_id);

create table destination_secrets (
  tenant_id       uuid not null,
  destination_id  uuid not null,
  secret_id       uuid not null,
  ciphertext      bytea not null,
  created_at      timestamptz not null default now(),
  expires_at      timestamptz,
  primary key (tenant_id, destination_id, secret_id),
  foreign key (tenant_id, destination_id) references destinations on delete cascade
);

-- How delivery to a destination goes, as all nodes see it. Written when its circuit breaker changes (compare and swap of
-- generation), and at most every ten seconds otherwise. No row: nothing was sent yet.
create table destination_health (
  tenant_id             uuid not null,
  destination_id        uuid not null,
  breaker               smallint not null default 1,   -- kapsel.v1.BreakerState
  probe_at              timestamptz,        -- when the next probe may be made; while one is under way, when it is given up
  pauses                integer not null default 0,    -- in a row: each is longer than the one before
  successes             smallint not null default 0,   -- of probes, while half-open
  generation            bigint not null default 0,
  changed_at            timestamptz not null default 'epoch',  -- of the breaker
  consecutive_failures  integer not null default 0,
  failing_since         timestamptz,        -- first of the failures since the last success; NULL: the last attempt succeeded
  last_success_at       timestamptz,
  last_failure_id       uuid,               -- the attempt
  last_failure_at       timestamptz,
  last_diagnosis        text not null default '',
  primary key (tenant_id, destination_id),
  foreign key (tenant_id, destination_id) references destinations on delete cascade
) with (fillfactor = 70);
-- Each node asks every second what has changed.
create index destination_health_changed on destination_health (changed_at);
-- Few fail for long.
create index destination_health_failing on destination_health (failing_since) where failing_since is not null;

-- What a node sent to a destination in a minute. Kept for some minutes.
create table destination_traffic (
  tenant_id       uuid not null,
  destination_id  uuid not null,
  minute          timestamptz not null,
  node_id         uuid not null,
  succeeded       bigint not null,
  failed          bigint not null,
  durations       bytea not null,           -- number of attempts in each class of duration (internal/delivery)
  in_flight       integer not null,         -- at written_at
  written_at      timestamptz not null default now(),
  primary key (tenant_id, destination_id, minute, node_id),
  foreign key (tenant_id, destination_id) references destinations on delete cascade
);
create index destination_traffic_minute on destination_traffic (minute);

-- What an operator or owner wants to hear of: a breaker opened or closed, a destination was disabled. Kept for 30 days.
create table operational_events (
  tenant_id             uuid not null references tenants on delete cascade,
  operational_event_id  uuid not null,
  kind                  text not null check (kind in ('breaker_opened', 'breaker_closed', 'destination_disabled')),
  destination_id        uuid not null,
  event_id              uuid,               -- that led to it; NULL: no single one
  detail                text not null,
  created_at            timestamptz not null default now(),
  primary key (tenant_id, operational_event_id)
);
create index operational_events_time on operational_events (created_at);

-- A destination that was deleted, until what was still to be delivered to it has been made due, and so becomes dead letters.
create table removed_destinations (
  tenant_id       uuid not null references tenants on delete cascade,
  destination_id  uuid not null,
  removed_at      timestamptz not null default now(),
  sweep_at        timestamptz not null default now(),   -- when the next step may begin
  swept_to        uuid not null default '00000000-0000-0000-0000-000000000000',  -- last delivery that the pass has looked at
  primary key (tenant_id, destination_id)
);

-- One row a process. A node whose heartbeat is old is dead, and its leases are taken over.
create table nodes (
  node_id       uuid primary key,
  name          text not null,
  version       text not null,
  roles         text[] not null,
  started_at    timestamptz not null default now(),
  heartbeat_at  timestamptz not null default now()
);

-- Events --------------------------------------------------------------------------------------------------------------

create table events (
  tenant_id       uuid not null,
  event_id        uuid not null,
  endpoint_id     uuid not null,
  received_at     timestamptz not null,
  body            bytea not null,           -- the exact bytes that came in
  headers         bytea not null,           -- all headers, a line each as on the wire: "Name: value\r\n"
  content_type    text not null,
  event_type      text not null,
  dedup_key       text not null,            -- '' when the event has none
  source_address  text not null,
  verification    text not null,            -- preset that its signature was checked by, 'none' when it was not
  defect          text not null,            -- why it cannot be delivered, '' when it can
  primary key (tenant_id, event_id)
) partition by range (event_id);
-- Payloads are often compressed or not worth it: store what is too long for the row as it is.
alter table events alter column body set storage external, alter column headers set storage external;

create table dedup_keys (
  tenant_id    uuid not null,
  endpoint_id  uuid not null,
  key_hash     bytea not null,              -- first 16 bytes of SHA-256 of the key
  event_id     uuid not null,               -- the first event with this key
  expires_at   timestamptz not null,
  primary key (tenant_id, endpoint_id, key_hash)
);
-- Rows come in order of time, so a block range index finds the expired ones at next to no cost a row.
create index dedup_keys_expires on dedup_keys using brin (expires_at) with (autosummarize = on);

-- Queue ---------------------------------------------------------------------------------------------------------------

-- Only what is live; a row is deleted when its delivery is closed. due_at is also the end of the lease.
create table delivery_queue (
  tenant_id       uuid not null,
  delivery_id     uuid not null,
  event_id        uuid not null,
  endpoint_id     uuid not null,
  destination_id  uuid,                     -- NULL: the event has a defect, what is due is its dead letter
  attempts        integer not null default 0,   -- number of attempts recorded so far
  due_at          timestamptz not null,
  lease_owner     uuid,                     -- node that holds it until due_at; NULL: nobody
  lost_owner      uuid,                     -- node whose lease ran out; its attempt is not recorded yet
  replay_of       uuid,                     -- the delivery that this one repeats
  order_key       bytea,                    -- first 16 bytes of SHA-256 of its ordering key; NULL: not ordered
  order_seq       bigint,                   -- its batch's place in the order of intake, then delivery_id; NULL: not ordered
  primary key (tenant_id, delivery_id)
) with (
  fillfactor = 80,
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
  autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000
);
create index delivery_queue_due on delivery_queue (due_at);
-- Who is next of a key. What is not ordered has no entry, and so no cost.
create index delivery_queue_order on delivery_queue (destination_id, order_key, order_seq, delivery_id) where order_key is not null;
create sequence delivery_order;

create table cancellations (
  tenant_id       uuid not null,
  delivery_id     uuid not null,
  event_id        uuid not null,
  destination_id  uuid not null,
  attempts        integer not null,
  reason          text not null,
  cancelled_at    timestamptz not null default now(),
  primary key (tenant_id, delivery_id)
);
create index cancellations_event on cancellations (tenant_id, event_id);

-- Leases whose delivery was cancelled: the attempt that may be under way still has to get its leaf. A row goes when the
-- lease is given back, or after its end, once the attempt is recorded. So there are only those of the last lease time.
create table cancelled_leases (
  tenant_id       uuid not null,
  delivery_id     uuid not null,
  event_id        uuid not null,
  endpoint_id     uuid not null,
  destination_id  uuid not null,
  attempts        integer not null,         -- recorded before: the one under way has the next number
  lease_owner     uuid not null,            -- node that may be sending it
  lease_ends_at   timestamptz not null,
  primary key (tenant_id, delivery_id)
);

create table dead_letters (
  tenant_id       uuid not null,
  dead_letter_id  uuid not null,            -- the delivery's id; the queue row's id for an event that has a defect
  event_id        uuid not null,
  endpoint_id     uuid not null,
  destination_id  uuid,                     -- NULL: the event as a whole
  reason          smallint not null,        -- kapsel.leaf.v1.DeadLetterReason
  attempts        integer not null,
  diagnosis       text not null,
  log_id          integer not null,
  leaf_index      bigint not null,
  dead_at         timestamptz not null,
  primary key (tenant_id, dead_letter_id)
);
create index dead_letters_event on dead_letters (tenant_id, event_id);
-- Lists and replays read them in the order of the log: all, of one endpoint, to one destination, of a span of time.
create index dead_letters_leaf on dead_letters (tenant_id, leaf_index);
create index dead_letters_endpoint on dead_letters (tenant_id, endpoint_id, leaf_index);
create index dead_letters_destination on dead_letters (tenant_id, destination_id, leaf_index);
create index dead_letters_time on dead_letters (tenant_id, dead_at);

-- Which deliveries repeat another one, written with their queue rows and kept when those are gone. First deliveries have
-- no row here, so intake pays nothing for it; and since a first delivery's id is made right after its event's, a row here
-- is what makes all deliveries of an event findable without an index on the hot queue.
create table redeliveries (
  tenant_id    uuid not null,
  delivery_id  uuid not null,
  event_id     uuid not null,
  replay_of    uuid,                        -- NULL: the event had no delivery to that destination before
  replay_id    uuid,                        -- the bulk replay that made it; NULL: an explicit wish
  primary key (tenant_id, delivery_id)
);
create index redeliveries_event on redeliveries (tenant_id, event_id);
create index redeliveries_replay_of on redeliveries (tenant_id, replay_of);
-- Overlapping bulk replays repeat a dead letter once; an explicit wish always counts.
create unique index redeliveries_once on redeliveries (tenant_id, replay_of) where replay_id is not null;

-- A bulk replay. Whoever locks the row makes its next step; a step's deliveries and its progress are one transaction.
create table replays (
  tenant_id        uuid not null references tenants on delete cascade,
  replay_id        uuid not null,
  filter           jsonb not null,          -- kapsel.v1.DeadLetterFilter as JSON
  state            text not null default 'running' check (state in ('running', 'completed', 'cancelled')),
  rate_per_second  integer not null check (rate_per_second between 1 and 10000),
  matched          bigint not null,         -- when it began
  replayed         bigint not null default 0,
  skipped          bigint not null default 0,
  after_index      bigint not null default -1,  -- leaf index of the last dead letter that was dealt with
  before_index     bigint not null,         -- the log's size when it began: what was given up later is not part of it
  step_at          timestamptz not null default now(),  -- when the next step may be made
  failures         integer not null default 0,  -- steps that failed one after the other
  error            text not null default '',    -- what the last one failed by, for people; '' after one that did not
  created_at       timestamptz not null default now(),
  ended_at         timestamptz,
  primary key (tenant_id, replay_id)
);
create index replays_due on replays (step_at) where state = 'running';

-- Ledger --------------------------------------------------------------------------------------------------------------

create table logs (
  log_id      integer primary key,
  origin      text not null unique,
  next_index  bigint not null default 0 check (next_index >= 0),
  created_at  timestamptz not null default now()
) with (fillfactor = 10); -- one row, updated by each batch: room for many versions in its page

create table log_keys (
  log_id      integer not null references logs,
  public_key  bytea not null,               -- 32 bytes, Ed25519
  created_at  timestamptz not null default now(),
  retired_at  timestamptz,
  primary key (log_id, public_key)
);

-- The ledger: its rows are the log's leaves, dense and in order. Append-only. The key is the leaf's place in the log,
-- not the tenant's, because a log is shared by tenants. The columns beside leaf are indexes into it, and what people want
-- to read but the log does not commit to in the clear (diagnosis, response excerpt).
create table attempts (
  log_id            integer not null,
  leaf_index        bigint not null,
  recorded_at       timestamptz not null,
  tenant_id         uuid not null,
  attempt_id        uuid not null,          -- for a dead letter's leaf: the leaf's own id
  delivery_id       uuid not null,
  event_id          uuid not null,
  outcome           smallint not null,      -- kapsel.leaf.v1.Outcome; 0 for a dead letter's leaf
  leaf              bytea not null,         -- the exact bytes that were hashed
  diagnosis         text not null,
  response_excerpt  bytea not null,
  primary key (log_id, leaf_index, recorded_at)
) partition by range (recorded_at);
create index attempts_id on attempts (attempt_id);
create index attempts_delivery on attempts (delivery_id);
create index attempts_event on attempts (event_id);
alter table attempts alter column leaf set storage external;

-- +goose StatementBegin
create function kapsel_append_only() returns trigger language plpgsql as $$
begin
  raise exception '% is append-only', tg_table_name using errcode = 'integrity_constraint_violation';
end
$$;
-- +goose StatementEnd
create trigger attempts_append_only before update or delete on attempts
  for each row execute function kapsel_append_only();

-- Log -----------------------------------------------------------------------------------------------------------------

-- C2SP tlog-tiles of height 8. A tile only grows, so one row serves every width up to its own: the partial tile of width
-- W is the first W hashes.
create table tiles (
  log_id      integer not null references logs,
  level       smallint not null check (level between 0 and 63),
  tile_index  bigint not null check (tile_index >= 0),
  hashes      bytea not null check (length(hashes) between 32 and 8192 and length(hashes) % 32 = 0),
  primary key (log_id, level, tile_index)
);
alter table tiles alter column hashes set storage external;

create table tree_heads (
  log_id     integer not null references logs,
  tree_size  bigint not null check (tree_size >= 0),
  root_hash  bytea not null,
  signed_at  timestamptz not null,
  note       text not null,                 -- the C2SP checkpoint as published, without witnesses' lines
  primary key (log_id, tree_size)
);

create table cosignatures (
  log_id      integer not null,
  tree_size   bigint not null,
  key_name    text not null,
  line        text not null,                -- one signature line of a signed note
  created_at  timestamptz not null default now(),
  primary key (log_id, tree_size, key_name, line),
  foreign key (log_id, tree_size) references tree_heads on delete cascade
);

-- Who seals the log, and the last head that was published: each publication compares and swaps tree_size.
create table log_sealers (
  log_id            integer primary key references logs,
  lease_owner       uuid,
  lease_expires_at  timestamptz not null default '-infinity',
  tree_size         bigint not null default 0,
  root_hash         bytea not null
);

-- Partitions ----------------------------------------------------------------------------------------------------------

-- Catches what no partition was made for, so that a stopped maintenance never stops intake.
create table events_default partition of events default;
create table attempts_default partition of attempts default;

-- Makes the partitions of the days from first_day to last_day (UTC) that are missing. Runs as the owner, so that the
-- engine needs no right to create tables.
-- +goose StatementBegin
create function kapsel_make_partitions(first_day date, last_day date) returns integer
  language plpgsql security definer set search_path from current as $$
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
    if to_regclass('events_' || to_char(day, 'YYYYMMDD')) is null then
      execute format('create table %I partition of events for values from (%L) to (%L)',
        'events_' || to_char(day, 'YYYYMMDD'), kapsel_uuid_floor(lower_bound), kapsel_uuid_floor(upper_bound));
      execute format('alter table %I set (toast_tuple_target = 4080)', 'events_' || to_char(day, 'YYYYMMDD'));
      made := made + 1;
    end if;
    if to_regclass('attempts_' || to_char(day, 'YYYYMMDD')) is null then
      execute format('create table %I partition of attempts for values from (%L) to (%L)',
        'attempts_' || to_char(day, 'YYYYMMDD'), lower_bound, upper_bound);
      made := made + 1;
    end if;
    day := day + 1;
  end loop;
  return made;
end
$$;
-- +goose StatementEnd
revoke all on function kapsel_make_partitions(date, date) from public;
grant execute on function kapsel_make_partitions(date, date) to kapsel_engine;

select kapsel_make_partitions((now() at time zone 'UTC')::date - 1, (now() at time zone 'UTC')::date + 7);

-- Change notices ------------------------------------------------------------------------------------------------------

-- +goose StatementBegin
create function kapsel_notify_routes() returns trigger language plpgsql as $$
begin
  perform pg_notify('kapsel_routes', tg_table_name);
  return null;
end
$$;

do $$
declare
  name text;
begin
  foreach name in array array['tenants', 'api_keys', 'endpoints', 'endpoint_secrets', 'destinations', 'destination_secrets'] loop
    execute format('create trigger notify_routes after insert or update or delete on %I '
      'for each statement execute function kapsel_notify_routes()', name);
  end loop;
end
$$;

create function kapsel_notify_tree_head() returns trigger language plpgsql as $$
begin
  perform pg_notify('kapsel_tree_heads', new.log_id || ' ' || new.tree_size);
  return null;
end
$$;
-- +goose StatementEnd
create trigger notify_tree_head after insert on tree_heads for each row execute function kapsel_notify_tree_head();

-- Rights --------------------------------------------------------------------------------------------------------------

-- +goose StatementBegin
do $$
declare
  name text;
begin
  foreach name in array array['tenants', 'api_keys', 'endpoints', 'endpoint_secrets', 'destinations', 'destination_secrets',
      'removed_destinations', 'destination_health', 'destination_traffic', 'operational_events', 'events', 'dedup_keys', 'delivery_queue', 'cancellations', 'cancelled_leases', 'dead_letters', 'redeliveries', 'replays', 'attempts'] loop
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format('create policy tenant on %I to kapsel_tenant using (tenant_id = kapsel_current_tenant()) '
      'with check (tenant_id = kapsel_current_tenant())', name);
    execute format('create policy engine on %I to kapsel_engine using (true) with check (true)', name);
  end loop;
  execute format('grant usage on schema %I to kapsel_tenant, kapsel_engine', current_schema());
end
$$;
-- +goose StatementEnd

grant select, insert, update, delete on tenants, api_keys, endpoints, endpoint_secrets, destinations, destination_secrets,
  removed_destinations, nodes, dedup_keys, delivery_queue, log_sealers to kapsel_engine;
grant select, insert on events, cancellations, dead_letters, attempts, log_keys, tree_heads, cosignatures to kapsel_engine;
grant select, insert, update on logs, tiles, log_keys to kapsel_engine;

grant select on tenants, events, delivery_queue, cancellations, dead_letters, attempts to kapsel_tenant;
grant select on logs, log_keys, log_sealers, tiles, tree_heads, cosignatures to kapsel_tenant;
grant select, insert, update, delete on api_keys, endpoints, endpoint_secrets, destinations, destination_secrets to kapsel_tenant;
grant insert on removed_destinations to kapsel_tenant;

-- Steering deliveries in the name of a tenant.
grant insert (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at, replay_of), update (due_at), delete
  on delivery_queue to kapsel_tenant;
grant select, insert on redeliveries to kapsel_tenant, kapsel_engine;
grant usage on sequence delivery_order to kapsel_engine;
grant insert on cancellations, cancelled_leases to kapsel_tenant;
grant select, update, delete on cancelled_leases to kapsel_engine;
grant select, insert on replays to kapsel_tenant;
grant update (state, ended_at) on replays to kapsel_tenant;
grant select, update on replays to kapsel_engine;

-- Health of destinations. Its owner's wish to resume one closes the breaker.
grant select, insert, update on destination_health to kapsel_engine;
grant select, insert, update, delete on destination_traffic to kapsel_engine;
grant select, insert, delete on operational_events to kapsel_engine;
grant select on destination_health, destination_traffic, operational_events to kapsel_tenant;
grant update (breaker, probe_at, pauses, successes, generation, changed_at, consecutive_failures, failing_since)
  on destination_health to kapsel_tenant;
