-- Keys that change, and witnesses.

-- +goose Up

-- The hand-overs from one key of a log to the next, which anyone may read. Each is a leaf too: its row in attempts has the
-- nil UUID in the place of tenant and event, which are nobody's, and its own id as that of the delivery, as leaves have that
-- are of no delivery. It stays here when retention drops that row.
create table log_key_rotations (
  log_id          integer not null references logs,
  leaf_index      bigint not null,
  old_public_key  bytea not null,
  new_public_key  bytea not null,
  leaf            bytea not null,           -- the exact bytes that were hashed
  recorded_at     timestamptz not null,
  primary key (log_id, leaf_index),
  foreign key (log_id, old_public_key) references log_keys,
  foreign key (log_id, new_public_key) references log_keys
);
create trigger log_key_rotations_append_only before update or delete on log_key_rotations
  for each row execute function kapsel_append_only();
grant select, insert on log_key_rotations to kapsel_engine;
grant select on log_key_rotations to kapsel_tenant;
comment on column log_keys.retired_at is 'when the key stops to sign, by this clock; in the future while keys change; null: not planned';

-- Of one key there is one line in a head's note.
alter table cosignatures
  add column verifier_key text not null default '', -- with which the line was verified; empty: its kind is not known
  add column key_id bytea generated always as (substring(decode(split_part(line, ' ', 3), 'base64') for 4)) stored;
create unique index cosignatures_key on cosignatures (log_id, tree_size, key_name, key_id);

-- +goose Down
drop index cosignatures_key;
alter table cosignatures drop column key_id, drop column verifier_key;
drop table log_key_rotations;
