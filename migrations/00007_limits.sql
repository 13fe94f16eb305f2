-- Limits of tenants, and what they have used.

-- +goose Up

alter table tenants
  add column ingest_bytes_per_day bigint check (ingest_bytes_per_day > 0),
  add column max_body_bytes integer check (max_body_bytes between 1 and 10485760),
  -- For how long payloads are kept, 1 day to 10 years. NULL: the server's default.
  add column payload_retention_seconds integer check (payload_retention_seconds between 86400 and 315360000);

-- What a tenant has used on a day (UTC), over all nodes. Each node adds what it has counted once a second: see
-- internal/limit. Kept for 400 days.
create table tenant_usage (
  tenant_id      uuid not null references tenants on delete cascade,
  day            date not null,
  events         bigint not null default 0,   -- accepted
  duplicates     bigint not null default 0,
  refused        bigint not null default 0,   -- over a limit
  payload_bytes  bigint not null default 0,   -- of the accepted events
  attempts       bigint not null default 0,
  delivered      bigint not null default 0,
  dead_lettered  bigint not null default 0,
  primary key (tenant_id, day)
) with (fillfactor = 50);
-- A node that starts reads today's, and maintenance removes old ones.
create index tenant_usage_day on tenant_usage (day);

alter table tenant_usage enable row level security;
alter table tenant_usage force row level security;
create policy tenant on tenant_usage to kapsel_tenant using (tenant_id = kapsel_current_tenant())
  with check (tenant_id = kapsel_current_tenant());
create policy engine on tenant_usage to kapsel_engine using (true) with check (true);
grant select on tenant_usage to kapsel_tenant;
grant select, insert, update, delete on tenant_usage to kapsel_engine;
