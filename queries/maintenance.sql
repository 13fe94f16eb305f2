-- name: MakePartitions :one
-- Makes the partitions of the coming days. Called at start and each minute. Fails rather than wait behind a long reader.
select kapsel_make_partitions((now() at time zone 'UTC')::date - 1, (now() at time zone 'UTC')::date + @days_ahead::integer);
