#!/usr/bin/env bash
# Builds the container image as its Dockerfile says, with buildah, and runs it: version, a user that is not root, a health check
# that fails where no node is. Needs root, buildah and busybox-static of Debian. The stage that compiles runs on an image
# made of this machine's Go instead of the one of a registry, so that it works without the network; all else is as it will be.
set -euo pipefail
cd "$(dirname "$0")/.."

for program in buildah busybox; do
  command -v "$program" >/dev/null || { echo "image not checked: install Debian's buildah and busybox-static" >&2; exit 1; }
done
work=$(mktemp -d)
buildah=(buildah --storage-driver vfs --root "$work/root" --runroot "$work/run")
trap '"${buildah[@]}" rm --all >/dev/null; rm -rf "$work"' EXIT

base=$(sed -n 's/^FROM \(golang:[^ ]*\) AS build$/\1/p' deploy/docker/Dockerfile)
stand=$("${buildah[@]}" from scratch)
tree=$("${buildah[@]}" mount "$stand")
mkdir -p "$tree"/{bin,tmp,usr/local,etc/ssl/certs,go/pkg/mod,root/.cache}
cp "$(command -v busybox)" "$tree/bin/busybox"
for applet in sh cp mkdir; do ln -s busybox "$tree/bin/$applet"; done
cp -r "$(go env GOROOT)" "$tree/usr/local/go"
cp /etc/ssl/certs/ca-certificates.crt "$tree/etc/ssl/certs/"
echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
"${buildah[@]}" config --env PATH=/usr/local/go/bin:/bin --env GOPATH=/go --env GOTOOLCHAIN=local "$stand"
"${buildah[@]}" commit --quiet "$stand" "localhost/stand-in:go" >/dev/null
"${buildah[@]}" rm "$stand" >/dev/null

"${buildah[@]}" bud --isolation chroot --format docker --quiet --pull-never -f deploy/docker/Dockerfile \
  --build-context "$base=docker-image://localhost/stand-in:go" --build-arg VERSION=v0.0.0-check \
  --volume "$(go env GOMODCACHE):/go/pkg/mod" --volume "$(go env GOCACHE):/root/.cache/go-build" -t kapsel:check . >/dev/null

[[ $("${buildah[@]}" inspect --type image --format '{{.OCIv1.Config.User}}' kapsel:check) == 65532:65532 ]] || { echo 'the image runs as root' >&2; exit 1; }
container=$("${buildah[@]}" from --pull-never kapsel:check)
run=("${buildah[@]}" run --isolation chroot "$container" --)
[[ $("${run[@]}" /kapsel version) == 'kapsel v0.0.0-check'* ]] || { echo 'the image has another version' >&2; exit 1; }
if "${run[@]}" /kapsel health http://127.0.0.1:1/readyz 2>/dev/null; then
  echo 'health found a node where none is' >&2
  exit 1
fi
"${run[@]}" /kapsel state init --state-dir /var/lib/kapsel >/dev/null
mounted=$("${buildah[@]}" mount "$container")
if [[ -e $mounted/bin/sh ]]; then
  echo 'the image has a shell' >&2
  exit 1
fi
echo "image: $(du -sh "$mounted" | cut -f1), user 65532, no shell"
