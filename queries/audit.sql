-- The audit log: each change of a tenant's resources, in the transaction that makes it.

-- name: WriteAuditEntry :exec
insert into audit_entries (tenant_id, entry_id, actor, actor_key, action, resource_id, detail, source_address)
values (@tenant_id, @entry_id, @actor, @actor_key, @action, @resource_id, @detail, @source_address);

-- name: ListAuditEntries :many
-- The newest first, in the name of the tenant. Primary key between from_id and before_id, or index audit_entries_resource. An
-- empty resource_id does not filter.
select * from audit_entries
where tenant_id = @tenant_id and entry_id >= @from_id and entry_id < @before_id
  and created_at >= @created_from and created_at < @created_before
  and (@resource_id::text = '' or resource_id = @resource_id::text)
order by entry_id desc limit @max_rows::integer;
