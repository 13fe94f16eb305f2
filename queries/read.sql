-- What the API reads of events, deliveries and attempts, in the name of a tenant (row-level security).

-- name: GetEvent :one
-- Primary key of events, one partition.
select event_id, tenant_id, endpoint_id, received_at, headers, content_type, event_type, dedup_key, source_address, verification, defect,
  length(body)::integer as body_bytes, sha256(body) as body_sha256
from events where tenant_id = @tenant_id and event_id = @event_id;

-- name: GetEventPayload :one
select body, content_type from events where tenant_id = @tenant_id and event_id = @event_id;

-- name: QueuedDeliveries :many
-- What is live of some events. A tenant's queue is read by its primary key, since most events have nothing live.
select tenant_id, delivery_id, event_id, endpoint_id, destination_id, attempts, due_at, lease_owner, replay_of
from delivery_queue where tenant_id = @tenant_id and event_id = any(@event_ids::uuid[]);

-- name: QueuedDelivery :one
select tenant_id, delivery_id, event_id, endpoint_id, destination_id, attempts, due_at, lease_owner, replay_of
from delivery_queue where tenant_id = @tenant_id and delivery_id = @delivery_id;

-- name: AttemptsOfEvents :many
-- Index attempts_event, in the partitions since the oldest of the events.
select log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id, outcome, leaf, diagnosis, response_excerpt
from attempts where event_id = any(@event_ids::uuid[]) and recorded_at >= @since order by leaf_index;

-- name: AttemptsOfDelivery :many
-- Index attempts_delivery, in the partitions since the delivery was made. Order: as recorded.
select log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id, outcome, leaf, diagnosis, response_excerpt
from attempts where delivery_id = @delivery_id and recorded_at >= @since and leaf_index > @after_leaf_index
order by leaf_index limit @max_rows::integer;

-- name: GetAttempt :one
-- Index attempts_id, in the partitions since the attempt was made.
select log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id, outcome, leaf, diagnosis, response_excerpt
from attempts where attempt_id = @attempt_id and recorded_at >= @since;

-- name: DeadLettersOfEvents :many
select * from dead_letters where tenant_id = @tenant_id and event_id = any(@event_ids::uuid[]);

-- name: CancellationsOfEvents :many
select * from cancellations where tenant_id = @tenant_id and event_id = any(@event_ids::uuid[]);
