-- What a destination wants of whoever delivers to it: a client certificate, an OAuth2 access token. What is public stands
-- beside the other settings, what is secret in a table of its own, sealed like signing secrets.

-- +goose Up

set local lock_timeout = '2s';

alter table destinations
  add column client_tls          jsonb,     -- kapsel.v1.ClientTls as JSON without its private key; NULL: plain TLS
  add column client_credentials  jsonb;     -- kapsel.v1.ClientCredentials as JSON without its secret; NULL: no token

create table destination_credentials (
  tenant_id       uuid not null,
  destination_id  uuid not null,
  kind            text not null check (kind in ('tls_key', 'client_secret')),
  credential_id   uuid not null,            -- the place that the ciphertext is bound to; new with each value
  ciphertext      bytea not null,
  created_at      timestamptz not null default now(),
  primary key (tenant_id, destination_id, kind),
  foreign key (tenant_id, destination_id) references destinations on delete cascade
);

create trigger notify_routes after insert or update or delete on destination_credentials
  for each statement execute function kapsel_notify_routes();

alter table destination_credentials enable row level security;
alter table destination_credentials force row level security;
create policy tenant on destination_credentials to kapsel_tenant using (tenant_id = kapsel_current_tenant())
  with check (tenant_id = kapsel_current_tenant());
create policy engine on destination_credentials to kapsel_engine using (true) with check (true);
grant select, insert, update, delete on destination_credentials to kapsel_tenant, kapsel_engine;
