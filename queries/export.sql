-- Proof packages in bulk. Called in the name of a tenant (row-level security).

-- name: HeadsAround :one
-- Between which leaf indexes a span of time lies: the largest head that was signed before it began, and the smallest one
-- after it ended; 0 and the largest index if there are none. Primary key of tree_heads, from both ends.
select coalesce((select h.tree_size from tree_heads h where h.log_id = @log_id and h.signed_at < @signed_before::timestamptz
    order by h.tree_size desc limit 1), 0)::bigint as first_index,
  coalesce((select h.tree_size from tree_heads h where h.log_id = @log_id and h.signed_at > @signed_after::timestamptz
    order by h.tree_size limit 1), 9223372036854775807)::bigint as end_index;

-- name: LeavesOfSpan :many
-- The tenant's leaves in a stretch of the log, but for those that were erased. Primary key of attempts, in the partitions of
-- the span.
select leaf_index, attempt_id, leaf from attempts
where log_id = @log_id and leaf_index >= @first_index::bigint and leaf_index < @end_index::bigint
  and recorded_at >= @recorded_from::timestamptz and recorded_at < @recorded_before::timestamptz
  and tenant_id = @tenant_id and leaf <> ''
order by leaf_index limit @max_rows::integer;
