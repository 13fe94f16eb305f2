#!/usr/bin/env bash
# Generates everything anew, in place, and fails when that changed anything, or when a generated file is not under
# version control. It compares with what was there before, not with the last commit, so it works while you edit.
set -euo pipefail
cd "$(dirname "$0")/.."

fingerprint() {
  find gen third_party sdk/ts/src/gen store proto/contract.binpb proto/openapi.yaml docs/api docs/api.md docs/presets docs/presets.md -type f \( -not -path 'store/*' -o -name '*.sql.go' \) -print0 |
    LC_ALL=C sort -z | xargs -0 -r sha256sum
}

before=$(fingerprint)
make --no-print-directory generate
after=$(fingerprint)

if [[ $before != "$after" ]]; then
  echo 'generated code was out of date. It is generated now; review and commit these files:' >&2
  diff <(echo "$before") <(echo "$after") | sed -nE 's/^[<>] [0-9a-f]{64}  /  /p' | sort -u >&2
  exit 1
fi

if git rev-parse --git-dir >/dev/null 2>&1; then
  untracked=$(git ls-files --others -- gen third_party sdk/ts/src/gen proto/contract.binpb proto/openapi.yaml docs/api docs/api.md docs/presets docs/presets.md 'store/*.sql.go')
  if [[ -n $untracked ]]; then
    printf 'generated files are not under version control, git add them:\n%s\n' "$untracked" >&2
    exit 1
  fi
fi
