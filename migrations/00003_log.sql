-- What the log needs to serve outsiders: finding a leaf by its hash, and a history of heads that does not grow for ever.

-- +goose Up

-- Finds leaves by their hash without an index on the ledger. Each block of 65,536 leaves is sorted into 256 buckets by the
-- first byte of their hashes, when its tiles are full. An entry has 6 bytes: bytes 2 to 5 of the hash, and the leaf's place
-- in the block, big-endian. Derived from tiles: it can be emptied, and is made again.
create table leaf_hashes (
  log_id   integer not null references logs,
  bucket   smallint not null check (bucket between 0 and 255),
  block    bigint not null check (block >= 0),
  entries  bytea not null check (length(entries) % 6 = 0),
  primary key (log_id, bucket, block)
);
alter table leaf_hashes alter column entries set storage external;
grant select, insert on leaf_hashes to kapsel_engine;
grant select on leaf_hashes to kapsel_tenant;

create index tree_heads_signed on tree_heads (log_id, signed_at);

-- Removes published heads that the policy does not keep: all younger than keep_all stay, then the last of each hour until
-- keep_hourly, then the last of each day (UTC); one with cosignatures before one without. The first and the latest always
-- stay. Cosignatures go with their head. Runs as the owner, so that the engine needs no right to delete heads. Returns how
-- many went, at most max_heads.
-- +goose StatementBegin
create function kapsel_thin_tree_heads(for_log integer, keep_all interval, keep_hourly interval, max_heads integer)
  returns integer language plpgsql security definer set search_path from current as $$
declare
  removed integer;
begin
  with aged as (
    select tree_size, row_number() over (
      partition by date_trunc(case when signed_at < date_trunc('day', now() - keep_hourly, 'UTC') then 'day' else 'hour' end, signed_at, 'UTC')
      order by exists (select from cosignatures c where c.log_id = for_log and c.tree_size = h.tree_size) desc, tree_size desc) as place
    from tree_heads h
    where log_id = for_log and signed_at < date_trunc('hour', now() - greatest(keep_all, interval '1 hour'), 'UTC')
      and tree_size > 0 and tree_size < (select max(tree_size) from tree_heads where log_id = for_log)
  )
  delete from tree_heads
  where log_id = for_log and tree_size in (select tree_size from aged where place > 1 order by tree_size limit max_heads);
  get diagnostics removed = row_count;
  return removed;
end
$$;
-- +goose StatementEnd
revoke all on function kapsel_thin_tree_heads(integer, interval, interval, integer) from public;
grant execute on function kapsel_thin_tree_heads(integer, interval, interval, integer) to kapsel_engine;

-- +goose Down
drop function kapsel_thin_tree_heads(integer, interval, interval, integer);
drop index tree_heads_signed;
drop table leaf_hashes;
