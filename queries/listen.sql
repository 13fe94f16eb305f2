-- Sessions of ListenService (delivery.Listeners, server/listen.go).

-- name: CreateListenSession :exec
insert into listen_sessions (tenant_id, session_id, destination_id, endpoint_ids, max_in_flight)
values (@tenant_id, @session_id, @destination_id, @endpoint_ids::uuid[], @max_in_flight);

-- name: ResumeListenSession :one
-- Primary key.
update listen_sessions set seen_at = now() where tenant_id = @tenant_id and session_id = @session_id
returning destination_id, max_in_flight;

-- name: GetListenSession :one
-- Primary key.
select destination_id from listen_sessions where tenant_id = @tenant_id and session_id = @session_id;

-- name: CountListenSessions :one
-- Primary key.
select count(*) from listen_sessions where tenant_id = @tenant_id;

-- name: TouchListenSession :exec
-- While a stream is open, a few times in the time that a session outlives it. Primary key.
update listen_sessions set seen_at = now() where tenant_id = @tenant_id and session_id = @session_id;

-- name: EndedListenSessions :many
-- Those that nobody resumed in time. Index listen_sessions_seen.
select tenant_id, session_id, destination_id from listen_sessions
where seen_at < now() - make_interval(secs => @silent_seconds::float8) order by seen_at limit @max_rows::integer
for update skip locked;

-- name: ClaimListened :many
-- Takes deliveries of a session's destination: what is held of it (delivery.heldUntil), and what was born or became due
-- a moment ago, so that it need not wait to be held. That is looked for among the newest due rows of the queue, however
-- many there are. What a lost node held is left to ClaimDue, which records its attempt. Index delivery_queue_due, primary key.
update delivery_queue q
set lease_owner = @node_id::uuid, due_at = now() + make_interval(secs => @lease_seconds::float8)
where q.ctid = any((array(
    select d.ctid from delivery_queue d
    where d.due_at >= @held_until::timestamptz and d.due_at <= @held_until::timestamptz
      and d.tenant_id = @tenant_id::uuid and d.destination_id = @destination_id::uuid and d.lease_owner is null and d.lost_owner is null
    order by d.due_at, d.delivery_id limit @max_rows::integer
    for update skip locked)
  || array(
    select d.ctid from delivery_queue d
    where d.tenant_id = @tenant_id::uuid and d.due_at <= now() and d.lease_owner is null and d.lost_owner is null
      and d.delivery_id = any(array(
        select f.delivery_id from (
          select n.tenant_id, n.delivery_id, n.destination_id from delivery_queue n where n.due_at <= now()
          order by n.due_at desc limit @max_front::integer) f
        where f.tenant_id = @tenant_id::uuid and f.destination_id = @destination_id::uuid
        order by f.delivery_id limit @max_rows::integer))
    for update skip locked))[1:@max_rows::integer])
returning q.tenant_id, q.delivery_id, q.event_id, q.endpoint_id, q.destination_id, q.attempts, q.lost_owner, q.order_key;
