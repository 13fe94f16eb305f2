-- Sessions of ListenService: temporary destinations whose deliveries go down a stream instead of over HTTP.

-- +goose Up

set local lock_timeout = '2s';

create table listen_sessions (
  tenant_id       uuid not null,
  session_id      uuid not null,
  destination_id  uuid not null,
  endpoint_ids    uuid[] not null,          -- endpoints that are listened to; empty: all of the tenant's
  max_in_flight   integer not null check (max_in_flight between 1 and 100),
  created_at      timestamptz not null default now(),
  seen_at         timestamptz not null default now(),   -- when a stream was open last; the session ends 10 minutes later
  primary key (tenant_id, session_id),
  unique (tenant_id, destination_id),
  foreign key (tenant_id, destination_id) references destinations on delete cascade
);
create index listen_sessions_seen on listen_sessions (seen_at);

-- Not on update: seen_at changes all the time, and routes do not depend on it.
create trigger notify_routes after insert or delete on listen_sessions
  for each statement execute function kapsel_notify_routes();

alter table listen_sessions enable row level security;
alter table listen_sessions force row level security;
create policy tenant on listen_sessions to kapsel_tenant using (tenant_id = kapsel_current_tenant())
  with check (tenant_id = kapsel_current_tenant());
create policy engine on listen_sessions to kapsel_engine using (true) with check (true);
grant select, insert, update on listen_sessions to kapsel_tenant;
grant select, update, delete on listen_sessions to kapsel_engine;
