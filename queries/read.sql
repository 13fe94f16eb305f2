-- What the API reads of events, deliveries and attempts, in the name of a tenant (row-level security).

-- name: GetEvent :one
-- Primary key of events, one partition.
select event_id, tenant_id, endpoint_id, received_at, headers, content_type, event_type, dedup_key, source_address, verification, defect, erased,
  length(body)::integer as body_bytes, sha256(body) as body_sha256
from events where tenant_id = @tenant_id and event_id = @event_id;

-- name: GetEventPayload :one
select body, content_type, erased from events where tenant_id = @tenant_id and event_id = @event_id;

-- name: ListEvents :many
-- The newest first: ids are UUIDv7. Primary key of events, in the partitions between from_id and before_id. Empty arrays
-- and texts do not filter. An id_from above id_to is the id of no event; dedup keys are stored as "<source>:<key>".
select event_id, tenant_id, endpoint_id, received_at, content_type, event_type, dedup_key, source_address, verification, defect, erased,
  length(body)::integer as body_bytes, sha256(body) as body_sha256
from events
where tenant_id = @tenant_id and event_id >= @from_id and event_id < @before_id
  and received_at >= @received_from and received_at < @received_before
  and (cardinality(@endpoint_ids::uuid[]) = 0 or endpoint_id = any(@endpoint_ids::uuid[]))
  and (cardinality(@event_types::text[]) + cardinality(@event_type_prefixes::text[]) = 0
    or event_type = any(@event_types::text[])
    or exists (select from unnest(@event_type_prefixes::text[]) as prefix where starts_with(event_type, prefix)))
  and (@key_text::text = '' or event_id between @id_from::uuid and @id_to::uuid
    or starts_with(substr(dedup_key, strpos(dedup_key, ':') + 1), @key_text::text))
order by event_id desc limit @max_rows::integer;

-- name: QueuedDeliveries :many
-- What is live of some events. Primary key: the ids of first deliveries are made right after their event's, before
-- end_id; those of the others stand in redeliveries (index redeliveries_event).
select q.tenant_id, q.delivery_id, q.event_id, q.endpoint_id, q.destination_id, q.attempts, q.due_at, q.lease_owner, q.replay_of
from delivery_queue q
where q.tenant_id = @tenant_id and q.event_id = any(@event_ids::uuid[])
  and (q.delivery_id > @oldest_event_id::uuid and q.delivery_id < @end_id::uuid
    or q.delivery_id = any(array(
      select r.delivery_id from redeliveries r where r.tenant_id = @tenant_id and r.event_id = any(@event_ids::uuid[]))))
order by q.delivery_id;

-- name: QueuedDelivery :one
select tenant_id, delivery_id, event_id, endpoint_id, destination_id, attempts, due_at, lease_owner, replay_of
from delivery_queue where tenant_id = @tenant_id and delivery_id = @delivery_id;

-- name: LeavesOfEvent :many
-- Attempts and dead letters. Index attempts_event, in the partitions since the event was received. Order: as recorded.
select log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id, outcome, leaf, diagnosis, response_excerpt
from attempts
where tenant_id = @tenant_id and event_id = @event_id and recorded_at >= @since
order by leaf_index limit @max_rows::integer;

-- name: SuccessesOfEvents :many
-- The attempts that succeeded (outcome 1). Index attempts_event, in the partitions since the oldest of the events.
select delivery_id, event_id, leaf from attempts
where tenant_id = @tenant_id and event_id = any(@event_ids::uuid[]) and recorded_at >= @since and outcome = 1;

-- name: AttemptsOfEvent :many
-- Without the leaves of dead letters (outcome 0). Index attempts_event.
select log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id, outcome, leaf, diagnosis, response_excerpt
from attempts
where tenant_id = @tenant_id and event_id = @event_id and recorded_at >= @since and leaf_index > @after_leaf_index and outcome <> 0
order by leaf_index limit @max_rows::integer;

-- name: LeavesOfDelivery :many
-- Attempts and the dead letter. Index attempts_delivery, in the partitions since the delivery was made.
select log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id, outcome, leaf, diagnosis, response_excerpt
from attempts where tenant_id = @tenant_id and delivery_id = @delivery_id and recorded_at >= @since
order by leaf_index limit @max_rows::integer;

-- name: AttemptsOfDelivery :many
-- Without the leaf of a dead letter (outcome 0). Index attempts_delivery.
select log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id, outcome, leaf, diagnosis, response_excerpt
from attempts
where tenant_id = @tenant_id and delivery_id = @delivery_id and recorded_at >= @since and leaf_index > @after_leaf_index and outcome <> 0
order by leaf_index limit @max_rows::integer;

-- name: GetAttempt :one
-- An attempt or the leaf of a dead letter. Index attempts_id, in the partitions since the attempt was made.
select log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id, outcome, leaf, diagnosis, response_excerpt
from attempts where tenant_id = @tenant_id and attempt_id = @attempt_id and recorded_at >= @since;

-- name: DeadLettersOfEvents :many
-- Index dead_letters_event.
select * from dead_letters where tenant_id = @tenant_id and event_id = any(@event_ids::uuid[]);

-- name: GetDeadLetter :one
select * from dead_letters where tenant_id = @tenant_id and dead_letter_id = @delivery_id;

-- name: CancellationsOfEvents :many
-- Index cancellations_event.
select * from cancellations where tenant_id = @tenant_id and event_id = any(@event_ids::uuid[]);

-- name: GetCancellation :one
select * from cancellations where tenant_id = @tenant_id and delivery_id = @delivery_id;

-- name: HeldDestinations :many
-- Which of some destinations are not delivered to now.
select destination_id, state, state_detail from destinations
where tenant_id = @tenant_id and destination_id = any(@destination_ids::uuid[]) and state <> 'enabled';

-- name: DeliveryAnchors :many
-- Where deliveries are found, the newest first: events, right after which first deliveries are made, and the other
-- deliveries themselves (is_repeat). Primary keys of events and of redeliveries, the newest max_rows up to a place.
select u.anchor::uuid as anchor, u.event_id::uuid as event_id, u.is_repeat::boolean as is_repeat from (
  (select e.event_id as anchor, e.event_id, false as is_repeat from events e
    where e.tenant_id = @tenant_id and e.event_id <= @up_to::uuid order by e.event_id desc limit @max_rows::integer)
  union all
  (select r.delivery_id, r.event_id, true from redeliveries r
    where r.tenant_id = @tenant_id and r.delivery_id <= @up_to::uuid order by r.delivery_id desc limit @max_rows::integer)
) u order by u.anchor desc limit @max_rows::integer;

-- name: FirstDeliveries :many
-- What is live of some events, without what repeats something. Primary key: the ids of first deliveries are made right
-- after their event's, before end_id.
select q.delivery_id, q.event_id, q.destination_id
from delivery_queue q
where q.tenant_id = @tenant_id and q.event_id = any(@event_ids::uuid[])
  and q.delivery_id > @oldest_event_id::uuid and q.delivery_id < @end_id::uuid;

-- name: RedeliveriesOfEvents :many
-- Index redeliveries_event.
select delivery_id from redeliveries where tenant_id = @tenant_id and event_id = any(@event_ids::uuid[]);
