#!/usr/bin/env bash
# Fails when the contract breaks its callers of main (buf.yaml says what counts). The base is the first that exists of:
# local main, origin/main, the previous commit. On main itself, with no uncommitted change, main is what is checked, so
# the base is the previous commit. BASE=ref names another one.
set -euo pipefail
cd "$(dirname "$0")/.."

commit() { git rev-parse --verify --quiet "$1^{commit}"; }

if ! git rev-parse --git-dir >/dev/null; then
  echo 'breaking changes cannot be checked outside of a git repository' >&2
  exit 1
fi

if [[ -n ${BASE:-} ]]; then
  base=$(commit "$BASE") || { echo "BASE=$BASE names no commit" >&2; exit 1; }
else
  base=$(commit main || commit refs/remotes/origin/main || true)
  head=$(commit HEAD || true)
  if [[ -z $base ]] || { [[ $base == "$head" ]] && git diff --quiet HEAD -- proto; }; then
    base=$(commit 'HEAD^' || echo "$base")
  fi
fi

if [[ -z $base ]] || [[ -z $(git ls-tree "$base" -- proto) ]]; then
  echo 'breaking changes: nothing to compare with, main has no contract yet'
  exit 0
fi

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
git archive "$base" -- proto third_party buf.yaml | tar -x -C "$directory"
echo "breaking changes: comparing with $(git log -1 --format='%h (%s)' "$base")"
go tool -modfile=tools/buf.mod buf breaking --against "$directory"
