#!/usr/bin/env bash
# Generates sdk/ts/src/gen from the contract. What is committed stays where there is no Node.js: a machine with only Go builds
# and tests everything else.
set -euo pipefail
cd "$(dirname "$0")/.."

status=0
tools/node-modules.sh sdk/ts || status=$?
case $status in
  0)
    go tool -modfile=tools/buf.mod buf generate --template buf.gen.ts.yaml
    npm --prefix sdk/ts run --silent verifier
    ;;
  3) ;;
  *) exit "$status" ;;
esac
