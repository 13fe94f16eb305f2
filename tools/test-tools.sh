#!/usr/bin/env bash
# Installs the Debian packages of tools/debian-packages.txt that are missing, where that can be done: on a Debian, as root.
# Elsewhere it names them, and their tests are skipped. It never fails: what is missing is said by each skipped test again.
set -euo pipefail
cd "$(dirname "$0")/.."

missing=()
while read -r package program _; do
  [[ -z $package || $package == '#'* ]] && continue
  PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing+=("$package")
done <tools/debian-packages.txt

if ((${#missing[@]} == 0)); then
  exit 0
fi
if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
  echo "not installed, tests that need them are skipped: ${missing[*]} (on a Debian: sudo apt-get install ${missing[*]})" >&2
  exit 0
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "installing for tests: ${missing[*]}"
if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
  tail -5 "$log" >&2
  echo "could not install: ${missing[*]}; tests that need them are skipped" >&2
fi
