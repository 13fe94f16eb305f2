-- Attempts of listening sessions, so that any node takes the report of what another one sent; and which stream a session has.

-- +goose Up

set local lock_timeout = '2s';

-- The newest stream: one on whichever node that is not it ends. NULL: opened by a node of an earlier version.
alter table listen_sessions add column stream_id uuid;

-- What was sent down a stream. Whoever sets settled_by, once, takes over the lease that the sending node has, and records the
-- result. Rows are removed a minute after the end of their time, settled or not: those that are not, a lease ends.
create table listen_attempts (
  tenant_id    uuid not null,
  attempt_id   uuid not null,
  session_id   uuid not null,
  delivery_id  uuid not null,
  attempts     integer not null,            -- recorded before this one, as in delivery_queue
  lease_owner  uuid not null,               -- the node that sent it
  report_until timestamptz not null,
  settled_by   uuid,                        -- the node that has the result
  offered      bytea not null,              -- what is known of the attempt without its result: kapsel.leaf.v1.Attempt
  primary key (tenant_id, attempt_id)
);

alter table listen_attempts enable row level security;
alter table listen_attempts force row level security;
create policy tenant on listen_attempts to kapsel_tenant using (tenant_id = kapsel_current_tenant())
  with check (tenant_id = kapsel_current_tenant());
create policy engine on listen_attempts to kapsel_engine using (true) with check (true);
grant select on listen_attempts to kapsel_tenant;
grant select, insert, update, delete on listen_attempts to kapsel_engine;
-- A report looks whether another one is being recorded, also of a delivery that was cancelled meanwhile.
grant select on cancelled_leases to kapsel_tenant;
