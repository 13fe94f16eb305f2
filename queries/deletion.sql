-- The end of a tenant. DeleteTenant begins it, as the operator; tenant.Deletions carries it out, as the engine, a page of
-- rows at a time. Payloads and leaf bytes are ledger.Eraser's.

-- name: BeginTenantDeletion :one
update tenants set state = 'deleting', deleted_at = now(), updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
where tenant_id = @tenant_id
returning *;

-- name: RevokeAPIKeysOfTenant :exec
update api_keys set revoked_at = now() where tenant_id = @tenant_id and revoked_at is null;

-- name: RequestTenantErasure :exec
-- A zero event_id is all of the tenant.
insert into erasures (tenant_id, event_id, reason)
values (@tenant_id, '00000000-0000-0000-0000-000000000000', 'its tenant was deleted') on conflict do nothing;

-- name: TenantsToDelete :many
-- Few, if any. A tenant may be taken by several nodes: their steps do not harm each other.
select t.tenant_id, exists (select from erasures e where e.tenant_id = t.tenant_id
    and e.event_id = '00000000-0000-0000-0000-000000000000' and e.finished_at is not null)::boolean as erased
from tenants t where t.state = 'deleting' and t.erased_at is null order by t.deleted_at;

-- name: DeleteTenantSecrets :one
-- What is not needed once nothing is taken in or sent any more.
with endpoint_rows as (
  delete from endpoint_secrets s where s.ctid = any(array(select x.ctid from endpoint_secrets x where x.tenant_id = @tenant_id::uuid limit @max_rows::integer))
  returning 1
), destination_rows as (
  delete from destination_secrets s where s.ctid = any(array(select x.ctid from destination_secrets x where x.tenant_id = @tenant_id::uuid limit @max_rows::integer))
  returning 1
), credential_rows as (
  delete from destination_credentials s where s.ctid = any(array(select x.ctid from destination_credentials x where x.tenant_id = @tenant_id::uuid limit @max_rows::integer))
  returning 1
), dedup_rows as (
  delete from dedup_keys s where s.ctid = any(array(select x.ctid from dedup_keys x where x.tenant_id = @tenant_id::uuid limit @max_rows::integer))
  returning 1
), told as (
  delete from operational_events s where s.ctid = any(array(select x.ctid from operational_events x where x.tenant_id = @tenant_id::uuid limit @max_rows::integer))
  returning 1
)
select (select count(*) from endpoint_rows) + (select count(*) from destination_rows) + (select count(*) from credential_rows) + (select count(*) from dedup_rows)
  + (select count(*) from told) as removed;

-- name: DeleteTenantConfiguration :one
-- What attempts that were under way still needed, so when payloads and leaves are erased. Endpoints go when no destination
-- names them any more. Figures of destinations go with them (on delete cascade).
with destination_rows as (
  delete from destinations s where s.ctid = any(array(select x.ctid from destinations x where x.tenant_id = @tenant_id::uuid limit @max_rows::integer))
  returning 1
), removal_rows as (
  delete from removed_destinations s where s.ctid = any(array(select x.ctid from removed_destinations x where x.tenant_id = @tenant_id::uuid limit @max_rows::integer))
  returning 1
), endpoint_rows as (
  delete from endpoints s where s.ctid = any(array(select x.ctid from endpoints x where x.tenant_id = @tenant_id::uuid
    and not exists (select from destinations d where d.tenant_id = x.tenant_id and d.endpoint_id = x.endpoint_id) limit @max_rows::integer))
  returning 1
), replay_rows as (
  delete from replays s where s.ctid = any(array(select x.ctid from replays x where x.tenant_id = @tenant_id::uuid limit @max_rows::integer))
  returning 1
), reasons as (
  update cancellations s set reason = '' where s.ctid = any(array(select x.ctid from cancellations x where x.tenant_id = @tenant_id::uuid
    and x.reason <> '' limit @max_rows::integer))
  returning 1
)
select (select count(*) from destination_rows) + (select count(*) from removal_rows) + (select count(*) from endpoint_rows)
  + (select count(*) from replay_rows) + (select count(*) from reasons) as removed;

-- name: FinishTenantDeletion :execrows
-- Once: nothing is left but ids, hashes and the audit log.
with keys as (
  delete from api_keys k where k.tenant_id = @tenant_id::uuid
), attempts as ( -- of the last minutes
  delete from listen_attempts a where a.tenant_id = @tenant_id::uuid
), finished as (
  update tenants t set erased_at = now(), display_name = '', updated_at = greatest(clock_timestamp(), t.updated_at + interval '1 microsecond')
  where t.tenant_id = @tenant_id::uuid and t.state = 'deleting' and t.erased_at is null
  returning t.tenant_id
)
insert into audit_entries (tenant_id, entry_id, actor, action, resource_id, detail, source_address)
select f.tenant_id, @entry_id::uuid, 'system', 'TenantErased', @resource_id::text, 'payloads, leaf bytes, secrets, endpoints, destinations and API keys are gone', ''
from finished f;
