#!/usr/bin/env bash
# Tests and vets what stands behind build tags, which go test ./... leaves out: keys in PKCS#11 tokens, which need a C
# compiler, and keys in clouds: those that sign the log, and those that encrypt the keyset of secrets.
set -euo pipefail
cd "$(dirname "$0")/.."

tags=awskms,gcpkms
if [[ $(go env CGO_ENABLED) == 1 ]] && command -v "$(go env CC | cut -d' ' -f1)" >/dev/null; then
  tags+=,pkcs11
else
  echo "no C compiler: keys in PKCS#11 tokens are not tested (on a Debian: sudo apt-get install gcc libc6-dev)" >&2
fi
go vet -tags "$tags" ./internal/signer
go test -tags "$tags" ./internal/signer
