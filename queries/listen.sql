-- Sessions of ListenService (delivery.Listeners, server/listen.go).

-- name: CreateListenSession :exec
insert into listen_sessions (tenant_id, session_id, destination_id, endpoint_ids, max_in_flight, stream_id)
values (@tenant_id, @session_id, @destination_id, @endpoint_ids::uuid[], @max_in_flight, @stream_id::uuid);

-- name: ResumeListenSession :one
-- Primary key.
update listen_sessions set seen_at = now(), stream_id = @stream_id::uuid where tenant_id = @tenant_id and session_id = @session_id
returning destination_id, max_in_flight;

-- name: GetListenSession :one
-- Primary key.
select destination_id from listen_sessions where tenant_id = @tenant_id and session_id = @session_id;

-- name: CountListenSessions :one
-- Primary key.
select count(*) from listen_sessions where tenant_id = @tenant_id;

-- name: TouchListenSessions :many
-- While streams are open, several times in the time that a session outlives its own. Returns those streams that their sessions
-- still have. Primary key.
update listen_sessions l set seen_at = now()
from rows from (unnest(@tenant_ids::uuid[]), unnest(@session_ids::uuid[]), unnest(@stream_ids::uuid[])) as u(tenant_id, session_id, stream_id)
where l.tenant_id = u.tenant_id and l.session_id = u.session_id and l.stream_id = u.stream_id
returning u.stream_id::uuid;

-- name: EndedListenSessions :many
-- Those that nobody resumed in time. Index listen_sessions_seen.
select tenant_id, session_id, destination_id from listen_sessions
where seen_at < now() - make_interval(secs => @silent_seconds::float8) order by seen_at limit @max_rows::integer
for update skip locked;

-- name: ClaimListened :many
-- Takes deliveries of a session's destination, with what they carry: what is held of it (delivery.HeldUntil), where its new ones
-- are born, and what became due a moment ago, so that a retry need not wait to be held. That is looked for among the newest due
-- rows of the queue, however many there are. What a lost node held is left to ClaimDue, which records its attempt. Bodies come up
-- to max_bytes, at least one; what has none does not fit, or its event is gone. Index delivery_queue_due, read only as far as the limit: a
-- further condition there would have a planner without statistics read and sort all that is held. Primary keys; events are looked up one by
-- one, since a join could read all partitions.
with claimed as (
  update delivery_queue q
  set lease_owner = @node_id::uuid, due_at = now() + make_interval(secs => @lease_seconds::float8)
  where q.ctid = any((array(
      select d.ctid from (
        select h.ctid, h.destination_id, h.lease_owner, h.lost_owner from delivery_queue h
        where h.due_at >= @held_until::timestamptz and h.due_at <= @held_until::timestamptz
        order by h.due_at limit @max_rows::integer
        for update skip locked) d
      where d.destination_id = @destination_id::uuid and d.lease_owner is null and d.lost_owner is null)
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
    and q.tenant_id = @tenant_id::uuid
  returning q.delivery_id, q.event_id, q.endpoint_id, q.attempts
)
select c.delivery_id, c.event_id, c.endpoint_id, c.attempts, (e.event_id is not null)::boolean as found,
  coalesce(e.received_at, now())::timestamptz as received_at, coalesce(e.headers, '')::bytea as headers,
  coalesce(e.content_type, '')::text as content_type, coalesce(e.event_type, '')::text as event_type,
  coalesce(e.dedup_key, '')::text as dedup_key, coalesce(e.source_address, '')::text as source_address,
  coalesce(e.verification, '')::text as verification,
  (case when sum(length(e.body)) over (order by c.delivery_id) <= @max_bytes::bigint or row_number() over (order by c.delivery_id) = 1
    then e.body end)::bytea as body
from claimed c left join lateral (
  select v.event_id, v.received_at, v.headers, v.content_type, v.event_type, v.dedup_key, v.source_address, v.verification, v.body
  from events v where v.tenant_id = @tenant_id::uuid and v.event_id = c.event_id and not v.erased offset 0) e on true
order by c.delivery_id;

-- name: OfferListened :exec
-- Writes down what is about to be sent down a stream. It need not be on disk before it is sent: without the row, nobody can report
-- the attempt, and its lease ends in an UNKNOWN one.
with relaxed as materialized (select set_config('synchronous_commit', 'off', true))
insert into listen_attempts (tenant_id, attempt_id, session_id, delivery_id, attempts, lease_owner, report_until, offered)
select @tenant_id::uuid, u.attempt_id, @session_id::uuid, u.delivery_id, u.attempts, @node_id::uuid,
  now() + make_interval(secs => @report_seconds::float8), u.offered
from relaxed, rows from (unnest(@attempt_ids::uuid[]), unnest(@delivery_ids::uuid[]), unnest(@attempts::integer[]), unnest(@offered::bytea[]))
  as u(attempt_id, delivery_id, attempts, offered);

-- name: SettleListened :many
-- Takes over attempts of a session to record their results, whichever node sent them: each once, and with its lease. What is past
-- its time is left to the node that sent it (overdue). An attempt whose lease was lost is settled and not returned: whoever has
-- the lease has recorded it as unknown, or will. Cancelled under way, it is recorded still. Primary keys.
with settled as (
  update listen_attempts a set settled_by = @node_id::uuid
  where a.tenant_id = @tenant_id::uuid and a.attempt_id = any(@attempt_ids::uuid[]) and a.session_id = @session_id::uuid
    and a.settled_by is null and (a.report_until > now() or @overdue::boolean)
  returning a.attempt_id, a.delivery_id, a.attempts, a.lease_owner, a.offered
), leased as (
  update delivery_queue q set lease_owner = @node_id::uuid
  from settled s
  where q.tenant_id = @tenant_id::uuid and q.delivery_id = any(array(select delivery_id from settled))
    and q.delivery_id = s.delivery_id and q.attempts = s.attempts and q.lease_owner = s.lease_owner and q.lost_owner is null
  returning s.attempt_id
), cancelled as (
  update cancelled_leases c set lease_owner = @node_id::uuid
  from settled s
  where c.tenant_id = @tenant_id::uuid and c.delivery_id = s.delivery_id and c.attempts = s.attempts and c.lease_owner = s.lease_owner
  returning s.attempt_id
)
select s.attempt_id, s.offered from settled s
where s.attempt_id in (select attempt_id from leased union all select attempt_id from cancelled);

-- name: ListenedAttempt :one
-- Whether an attempt of a session is being recorded: some node has its result, and the lease with it. Primary keys.
select (a.settled_by is not null and (
  exists (select from delivery_queue q where q.tenant_id = a.tenant_id and q.delivery_id = a.delivery_id
    and q.attempts = a.attempts and q.lease_owner = a.settled_by and q.lost_owner is null)
  or exists (select from cancelled_leases c where c.tenant_id = a.tenant_id and c.delivery_id = a.delivery_id
    and c.attempts = a.attempts and c.lease_owner = a.settled_by)))::boolean as recording
from listen_attempts a where a.tenant_id = @tenant_id and a.attempt_id = @attempt_id and a.session_id = @session_id;

-- name: DeleteListenAttempts :execrows
-- Those whose time was over a while ago. Reads the whole table, which has those of a few minutes.
delete from listen_attempts where ctid = any(array(
  select a.ctid from listen_attempts a where a.report_until < now() - make_interval(secs => @keep_seconds::float8)
  limit @max_rows::integer for update skip locked));

-- name: NotifyListeners :exec
-- A statement of its own, since whoever commits a notification holds up all others that do.
select pg_notify('kapsel_listen', p) from unnest(@payloads::text[]) p;
