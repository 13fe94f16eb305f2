-- What a destination wants of whoever delivers to it: the key of a client certificate, a client secret, values of headers. Sealed.

-- name: PutDestinationCredential :exec
-- A new value has a new id: it is what the ciphertext is bound to.
insert into destination_credentials (tenant_id, destination_id, kind, credential_id, ciphertext)
values (@tenant_id, @destination_id, @kind, @credential_id, @ciphertext)
on conflict (tenant_id, destination_id, kind)
  do update set credential_id = excluded.credential_id, ciphertext = excluded.ciphertext, created_at = now();

-- name: RemoveDestinationCredential :exec
delete from destination_credentials where tenant_id = @tenant_id and destination_id = @destination_id and kind = @kind;

-- name: DestinationCredential :one
select credential_id, ciphertext from destination_credentials
where tenant_id = @tenant_id and destination_id = @destination_id and kind = @kind;

-- name: OldNodes :one
-- Whether a node, whatever its roles, honours less than this. A handful of rows, for changes of destinations that ask for it.
select exists (
  select from nodes where features < @features::integer
    and heartbeat_at >= now() - make_interval(secs => @gone_after_seconds::float8)
);
