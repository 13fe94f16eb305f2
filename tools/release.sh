#!/usr/bin/env bash
# Builds release archives for Linux and macOS on amd64 and arm64 into dist/, with checksums and, for each, an SBOM
# (CycloneDX) of what was linked. The same commit, Go version and VERSION give the same archives on any machine: no cgo, no
# paths, no build id, no times but the commit's. PLATFORMS="linux/amd64" builds fewer.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${VERSION:-$(git describe --tags --always --dirty)}
commit_time=$(TZ=UTC0 git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd)
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
platforms=${PLATFORMS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64}

rm -rf dist
mkdir -p dist
for platform in $platforms; do
  name=kapsel-$version-${platform%/*}-${platform#*/}
  mkdir "dist/$name"
  CGO_ENABLED=0 GOOS=${platform%/*} GOARCH=${platform#*/} GOFLAGS='' \
    go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.release=$version" -o "dist/$name/kapsel" ./cmd/kapsel
  cp README.md CHANGELOG.md "dist/$name/"
  sbom=dist/$name.cdx.json
  go tool -modfile=tools/cyclonedx.mod cyclonedx-gomod bin -json -noserial -version "$version" -output "$sbom" "dist/$name/kapsel"
  sed -i.bak -E "s/(\"timestamp\": )\"[^\"]*\"/\1\"$commit_time\"/" "$sbom" && rm "$sbom.bak"
  if [[ $platform == linux/* ]]; then
    cp -r deploy/systemd "dist/$name/systemd"
  fi
  find "dist/$name" -type d -exec chmod 755 {} + -o -name kapsel -type f -exec chmod 755 {} + -o -exec chmod 644 {} +
  tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" -C dist -cf - "$name" | gzip -n9 >"dist/$name.tar.gz"
  rm -r "dist/${name:?}"
done
(cd dist && sha256sum -- * >SHA256SUMS)
ls -l dist
