#!/usr/bin/env bash
# Checks what is in deploy/ with each format's own tools: the Helm chart is linted, rendered, decoded strictly into the
# Kubernetes API's types and held against its Pod Security Standards, and wrong values are refused; the Compose file is loaded by
# the Compose Specification's loader; the
# systemd unit is verified and its exposure bounded; the image is built and run; a release is built twice, from two
# directories, and must come out the same. What a machine cannot check is said.
set -euo pipefail
cd "$(dirname "$0")/.."

go tool -modfile=tools/helm.mod helm lint deploy/helm/kapsel --set \
  publicURL=https://hooks.example.com,database.existingSecret=d,keyset.existingSecret=k,logKey.existingSecret=l 2> >(grep -v 'found symbolic link' >&2)
go test -modfile=tools/helm.mod -count=1 tools/deploycheck/chart_test.go

POSTGRES_PASSWORD=check go run -modfile=tools/compose.mod tools/deploycheck/compose.go deploy/compose.yaml

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
git clone --quiet --no-local . "$directory/clone"
for place in . "$directory/clone"; do
  (cd "$place" && VERSION=v0.0.0-check SOURCE_DATE_EPOCH=1 PLATFORMS=linux/amd64 tools/release.sh >/dev/null)
done
cmp dist/kapsel-v0.0.0-check-linux-amd64.tar.gz "$directory/clone/dist/kapsel-v0.0.0-check-linux-amd64.tar.gz"
(cd dist && sha256sum --quiet --check SHA256SUMS)
echo 'release: the same from two directories'

if command -v systemd-analyze >/dev/null; then
  tar -xzf dist/kapsel-v0.0.0-check-linux-amd64.tar.gz -C "$directory"
  sed "s|^ExecStart=/usr/local/bin/kapsel|ExecStart=$directory/kapsel-v0.0.0-check-linux-amd64/kapsel|" deploy/systemd/kapsel.service >"$directory/kapsel.service"
  systemd-analyze verify "$directory/kapsel.service"
  systemd-analyze security --offline=true --threshold=15 "$directory/kapsel.service" | tail -1
else
  echo 'unit not checked: no systemd-analyze here' >&2
fi
rm -rf dist

if ((EUID == 0)) && command -v buildah >/dev/null && command -v busybox >/dev/null; then
  tools/check-image.sh
else
  echo "image not checked: needs root and Debian's buildah and busybox-static" >&2
fi
