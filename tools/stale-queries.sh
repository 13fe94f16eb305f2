#!/usr/bin/env bash
# Removes generated files of queries that are no more: sqlc only ever writes.
set -euo pipefail
cd "$(dirname "$0")/.."

for file in store/*.sql.go; do
  query=$(basename "$file" .go)
  case $query in
    db.sql | models.sql | batch.sql | copyfrom.sql) continue ;;
  esac
  if [[ ! -e queries/$query ]]; then
    echo "removing $file: queries/$query is gone"
    rm "$file"
  fi
done
