-- name: StoreTest :exec
-- A test event and its one delivery, leased to the node that sends it at once. Called by delivery's Tester.
with stored as (
  insert into events (tenant_id, event_id, endpoint_id, received_at, body, headers, content_type, event_type, dedup_key,
    source_address, verification, defect)
  values (@tenant_id, @event_id, @endpoint_id, @received_at, @body, '', @content_type, @event_type, '', '', @verification, '')
)
insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at, lease_owner)
values (@tenant_id, @delivery_id, @event_id, @endpoint_id, @destination_id,
  now() + make_interval(secs => @lease_seconds::float8), @node_id::uuid);
