#!/usr/bin/env bash
# Brings the npm packages of a folder to what its package-lock.json says: tools/node-modules.sh sdk/ts. Does nothing, and needs
# no network, when they are there already. Fails with status 3, and says so, where there is no Node.js 20 or later with npm.
set -euo pipefail
cd "$(dirname "$0")/../$1"

node_major=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)
if ((node_major < 20)) || ! command -v npm >/dev/null; then
  echo "$1: left out, there is no Node.js 20 or later with npm" >&2
  exit 3
fi

# The stamp is the last thing written, so packages that were fetched in part are fetched again.
stamp=node_modules/.from-lock
digest=$(cat package.json package-lock.json | sha256sum | cut -d' ' -f1)
if [[ $(cat "$stamp" 2>/dev/null) != "$digest" ]]; then
  npm ci --ignore-scripts --loglevel=error >&2
  echo "$digest" >"$stamp"
fi
