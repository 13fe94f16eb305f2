-- name: EnsureLog :exec
-- Makes the log on first start.
insert into logs (log_id, origin) values (@log_id, @origin) on conflict do nothing;

-- name: EnsureLogSealer :exec
insert into log_sealers (log_id, root_hash) values (@log_id, @empty_root) on conflict do nothing;

-- name: EnsureLogKey :exec
-- Gives a log that has no key its first one. Later ones come by RecordKeyRotation.
insert into log_keys (log_id, public_key)
select @log_id::integer, @public_key::bytea where not exists (select from log_keys where log_id = @log_id::integer)
on conflict do nothing;

-- name: LogKeysInForce :many
-- The keys that sign now, the newest first. Called by the sealer.
select public_key from log_keys where log_id = @log_id and (retired_at is null or retired_at > now()) order by created_at desc;

-- name: RecordKeyRotation :many
-- Hands the log over to a new key: retires the old one when the overlap ends, adds the new one, and records the leaf that
-- says so. No row: the old key is not the one in force, and nothing has changed.
with retired as (
  update log_keys set retired_at = now() + make_interval(secs => @overlap_seconds::float8)
  where log_id = @log_id::integer and public_key = @old_public_key::bytea and retired_at is null
  returning log_id
), added as (
  insert into log_keys (log_id, public_key) select log_id, @new_public_key::bytea from retired returning log_id
), place as (
  update logs set next_index = next_index + 1
  where log_id = @log_id::integer and exists (select from added)
  returning next_index - 1 as leaf_index
), written as (
  insert into attempts (log_id, leaf_index, recorded_at, tenant_id, attempt_id, delivery_id, event_id, outcome, leaf,
    diagnosis, response_excerpt)
  select @log_id::integer, leaf_index, now(), nobody.id, @leaf_id::uuid, @leaf_id::uuid, nobody.id, 0, @leaf::bytea, '', ''
  from place, (select '00000000-0000-0000-0000-000000000000'::uuid as id) nobody
  returning leaf_index
)
insert into log_key_rotations (log_id, leaf_index, old_public_key, new_public_key, leaf, recorded_at)
select @log_id::integer, leaf_index, @old_public_key::bytea, @new_public_key::bytea, @leaf::bytea, now() from written
returning leaf_index;

-- name: ListKeyRotations :many
select leaf_index, leaf, new_public_key from log_key_rotations where log_id = @log_id order by leaf_index;

-- name: GetLog :one
select log_id, origin, next_index, created_at from logs where log_id = @log_id;

-- name: ListLogKeys :many
select public_key, created_at, retired_at from log_keys where log_id = @log_id order by created_at;

-- name: AcquireSealerLease :one
-- Takes or renews the sealer's lease and reads what was published last. No row: another node holds it.
update log_sealers
set lease_owner = @node_id::uuid, lease_expires_at = now() + make_interval(secs => @lease_seconds::float8)
where log_id = @log_id and (lease_owner is null or lease_owner = @node_id::uuid or lease_expires_at <= now())
returning tree_size, root_hash;

-- name: ReleaseSealerLease :exec
update log_sealers set lease_owner = null, lease_expires_at = '-infinity'
where log_id = @log_id and lease_owner = @node_id::uuid;

-- name: UnsealedLeaves :one
-- How many leaves wait for a seal, and for how long the oldest of them. Called by the sealer. Primary key of attempts, in
-- the partitions since a time at which none of them was recorded yet.
select l.next_index, s.tree_size,
  coalesce((select extract(epoch from now() - a.recorded_at) from attempts a
    where a.log_id = l.log_id and a.leaf_index = s.tree_size and a.recorded_at >= @since::timestamptz), 0)::float8 as oldest_seconds
from logs l join log_sealers s using (log_id) where l.log_id = @log_id;

-- name: LeafRange :many
-- The leaves of a range, in order. Called by the sealer. Primary key of attempts, in the partitions since a time at which
-- none of them was recorded yet.
select leaf_index, recorded_at, leaf from attempts
where log_id = @log_id and leaf_index >= @first_index and leaf_index < @end_index and recorded_at >= @since::timestamptz
order by leaf_index;

-- name: PutTiles :exec
-- Writes tiles that are new or have grown. A tile never shrinks and never changes, so a late writer changes nothing.
insert into tiles as t (log_id, level, tile_index, hashes)
select @log_id::integer, u.level, u.tile_index, u.hashes
from rows from (unnest(@levels::smallint[]), unnest(@tile_indexes::bigint[]), unnest(@hashes::bytea[]))
  as u(level, tile_index, hashes)
on conflict (log_id, level, tile_index) do update set hashes = excluded.hashes
  where length(excluded.hashes) > length(t.hashes);

-- name: GetTiles :many
select t.level, t.tile_index, t.hashes
from rows from (unnest(@levels::smallint[]), unnest(@tile_indexes::bigint[])) as u(level, tile_index)
join tiles t on t.log_id = @log_id::integer and t.level = u.level and t.tile_index = u.tile_index;

-- name: PublishTreeHead :one
-- Publishes a signed head: compares and swaps the size and root of the one before it, held by this node's lease. No row:
-- another sealer was faster, and this head must never be shown to anybody.
with swapped as (
  update log_sealers
  set tree_size = @tree_size::bigint, root_hash = @root_hash::bytea
  where log_id = @log_id::integer and lease_owner = @node_id::uuid and lease_expires_at > now()
    and tree_size = @previous_size::bigint and root_hash = @previous_root::bytea
  returning log_id
), head as (
  insert into tree_heads (log_id, tree_size, root_hash, signed_at, note)
  select log_id, @tree_size::bigint, @root_hash::bytea, @signed_at::timestamptz, @note::text from swapped
  returning log_id, tree_size
), cosigned as (
  insert into cosignatures (log_id, tree_size, key_name, line, verifier_key)
  select head.log_id, head.tree_size, u.key_name, u.line, u.verifier_key
  from head, rows from (unnest(@key_names::text[]), unnest(@lines::text[]), unnest(@verifier_keys::text[])) as u(key_name, line, verifier_key)
  on conflict do nothing
)
select tree_size from head;

-- name: AddCosignatures :exec
-- Adds what has come since a head was published. Of one key the first line stays.
insert into cosignatures (log_id, tree_size, key_name, line, verifier_key)
select h.log_id, h.tree_size, u.key_name, u.line, u.verifier_key
from tree_heads h, rows from (unnest(@key_names::text[]), unnest(@lines::text[]), unnest(@verifier_keys::text[])) as u(key_name, line, verifier_key)
where h.log_id = @log_id::integer and h.tree_size = @tree_size::bigint
on conflict do nothing;

-- name: LatestTreeHead :one
select tree_size, root_hash, signed_at, note from tree_heads where log_id = @log_id order by tree_size desc limit 1;

-- name: TreeHeadAt :one
select tree_size, root_hash, signed_at, note from tree_heads where log_id = @log_id and tree_size = @tree_size;

-- name: FirstTreeHeadCovering :one
-- The smallest head whose tree holds the leaf.
select tree_size, root_hash, signed_at, note from tree_heads
where log_id = @log_id and tree_size > @leaf_index order by tree_size limit 1;

-- name: ListTreeHeads :many
select tree_size, root_hash, signed_at, note from tree_heads
where log_id = @log_id and tree_size < @before_size order by tree_size desc limit @max_rows::integer;

-- name: CosignaturesOfHeads :many
-- Cosignatures of a page of heads. Primary key of cosignatures.
select tree_size, line, verifier_key from cosignatures where log_id = @log_id and tree_size = any(@tree_sizes::bigint[])
order by tree_size, created_at, key_name;

-- name: ThinTreeHeads :one
-- Removes old heads by policy, and returns how many. Called by maintenance. Index tree_heads_signed.
select kapsel_thin_tree_heads(@log_id::integer, make_interval(secs => @keep_all_seconds::float8),
  make_interval(secs => @keep_hourly_seconds::float8), @max_heads::integer);

-- name: RequestSeal :exec
-- Asks whichever node leads to seal what waits.
select pg_notify('kapsel_seal_requests', cast(@log_id::integer as text));

-- name: LogProgress :one
-- How many leaves are recorded, and how many of them a published head covers.
select l.next_index, s.tree_size from logs l join log_sealers s using (log_id) where l.log_id = @log_id;

-- name: LeafHashBlocks :one
-- How many blocks of leaves can be found by their hash. Primary key of leaf_hashes.
select coalesce(max(block) + 1, 0)::bigint from leaf_hashes where log_id = @log_id and bucket = 0;

-- name: PutLeafHashes :exec
-- Writes all buckets of one block. Another node may have been faster, with the same ones.
insert into leaf_hashes (log_id, bucket, block, entries)
select @log_id::integer, u.bucket, @block::bigint, u.entries
from rows from (unnest(@buckets::smallint[]), unnest(@entries::bytea[])) as u(bucket, entries)
on conflict do nothing;

-- name: FindLeafHash :many
-- The blocks whose bucket holds these bytes: nearly always those of one leaf, or none. Primary key of leaf_hashes.
select block, entries from leaf_hashes
where log_id = @log_id and bucket = @bucket and position(@bytes::bytea in entries) > 0
order by block limit @max_blocks::integer;

-- name: LockLogForRestart :one
-- How many nodes are alive. Called by the tables' owner before it gives a log up, which has it alone until the end.
with locked as materialized (select from logs where log_id = @log_id for update)
select count(*) from nodes where heartbeat_at > now() - interval '10 seconds' and exists (select from locked);

-- name: DropLogRotations :exec
delete from log_key_rotations where log_id = @log_id;

-- name: DropLogHeads :exec
-- Cosignatures go with them.
delete from tree_heads where log_id = @log_id;

-- name: DropLogKeys :exec
delete from log_keys where log_id = @log_id;

-- name: RenameLog :exec
update logs set origin = @origin where log_id = @log_id;

-- name: RestartHead :exec
-- The first head of a log that goes on under another name: the tree that was published last under the old one.
with sealer as (
  update log_sealers set tree_size = @tree_size::bigint, root_hash = @root_hash::bytea, lease_owner = null, lease_expires_at = '-infinity' where log_id = @log_id
)
insert into tree_heads (log_id, tree_size, root_hash, signed_at, note)
values (@log_id, @tree_size, @root_hash, @signed_at, @note);
