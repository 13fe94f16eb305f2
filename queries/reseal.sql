-- The rotation of the keys that secrets at rest are sealed under, by the engine. What is sealed begins with the length of its
-- data key (4 bytes) and the prefix of the key that sealed that (5 bytes, see internal/secret). Small tables, read in full.

-- name: SealedUnder :many
-- How many secrets each key has sealed.
select kind::text as kind, prefix::bytea as prefix, count(*) as secrets from (
  select 'endpoint_secret' as kind, substring(ciphertext from 5 for 5) as prefix from endpoint_secrets
  union all select 'destination_secret', substring(ciphertext from 5 for 5) from destination_secrets
  union all select 'destination_credential', substring(ciphertext from 5 for 5) from destination_credentials
) sealed group by kind, prefix order by kind, prefix;

-- name: EndpointSecretsToReseal :many
-- A page of those that another key has sealed. The next one begins after the last of this one.
select tenant_id, secret_id, ciphertext from endpoint_secrets
where substring(ciphertext from 5 for 5) <> @prefix::bytea and secret_id > @after_id order by secret_id limit @max_rows::integer;

-- name: ResealEndpointSecrets :execrows
-- What was rotated meanwhile is left alone.
update endpoint_secrets s set ciphertext = n.after
from rows from (unnest(@tenant_ids::uuid[]), unnest(@secret_ids::uuid[]), unnest(@befores::bytea[]), unnest(@afters::bytea[]))
  as n (tenant_id, secret_id, before, after)
where s.tenant_id = n.tenant_id and s.secret_id = n.secret_id and s.ciphertext = n.before;

-- name: DestinationSecretsToReseal :many
select tenant_id, secret_id, ciphertext from destination_secrets
where substring(ciphertext from 5 for 5) <> @prefix::bytea and secret_id > @after_id order by secret_id limit @max_rows::integer;

-- name: ResealDestinationSecrets :execrows
update destination_secrets s set ciphertext = n.after
from rows from (unnest(@tenant_ids::uuid[]), unnest(@secret_ids::uuid[]), unnest(@befores::bytea[]), unnest(@afters::bytea[]))
  as n (tenant_id, secret_id, before, after)
where s.tenant_id = n.tenant_id and s.secret_id = n.secret_id and s.ciphertext = n.before;

-- name: CredentialsToReseal :many
select tenant_id, credential_id, kind, ciphertext from destination_credentials
where substring(ciphertext from 5 for 5) <> @prefix::bytea and credential_id > @after_id order by credential_id limit @max_rows::integer;

-- name: ResealCredentials :execrows
update destination_credentials s set ciphertext = n.after
from rows from (unnest(@tenant_ids::uuid[]), unnest(@credential_ids::uuid[]), unnest(@befores::bytea[]), unnest(@afters::bytea[]))
  as n (tenant_id, credential_id, before, after)
where s.tenant_id = n.tenant_id and s.credential_id = n.credential_id and s.ciphertext = n.before;
