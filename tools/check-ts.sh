#!/usr/bin/env bash
# Checks the types of the TypeScript SDK, where there is Node.js.
set -euo pipefail
cd "$(dirname "$0")/.."

status=0
tools/node-modules.sh sdk/ts || status=$?
case $status in
  0) npm --prefix sdk/ts run --silent check ;;
  3) ;;
  *) exit "$status" ;;
esac
