#!/usr/bin/env bash
# Runs every fuzz target of the repository in turn, or of the given directories, all together for the given time (10m, 90s, 1h):
# tools/fuzz.sh 12s internal/tlog. Ends with 1 if one found something: the input is then in testdata/fuzz of its package, where the next test run has it too.
set -euo pipefail
cd "$(dirname "$0")/.."

case "$1" in
*h) budget=$((${1%h} * 3600)) ;;
*m) budget=$((${1%m} * 60)) ;;
*s) budget=${1%s} ;;
*) echo "time $1: want a number and h, m or s" >&2; exit 2 ;;
esac

directories=("${@:2}")
[ ${#directories[@]} -gt 0 ] || directories=(cmd internal sdk/go server store)
mapfile -t targets < <(grep -rE --include='*_test.go' '^func Fuzz[A-Za-z0-9]+\(' "${directories[@]}" | sed -E 's#^(.*)/[^/]+:func (Fuzz[A-Za-z0-9]+)\(.*#\1 \2#' | sort)
each=$((budget / ${#targets[@]}))
[ "$each" -ge 1 ] || each=1
echo "${#targets[@]} targets, ${each}s each"
output=$(mktemp)
trap 'rm -f "$output"' EXIT
# fuzz PACKAGE NAME fuzzes one target. Before Go 1.27 the end of the time can itself be reported as a failure (https://go.dev/issue/75804):
# without an input that fails, and with that error alone, it is fuzzed again.
fuzz() {
	for _ in 1 2 3; do
		# -fuzzminimizetime: what was found is shown soon, however long it could still be made smaller.
		go test "./$1" -run '^$' -fuzz "^$2\$" -fuzztime "${each}s" -fuzzminimizetime 5s 2>&1 | tee "$output" && return
		grep -qE '^ +context deadline exceeded$' "$output" && ! grep -qiE 'failing input|panic|fatal' "$output" || return 1
	done
	return 1
}
failed=()
for target in "${targets[@]}"; do
	read -r package name <<<"$target"
	echo "== ./$package $name"
	fuzz "$package" "$name" || failed+=("./$package $name")
done
if [ ${#failed[@]} -gt 0 ]; then
	printf 'found something: %s\n' "${failed[@]}"
	exit 1
fi
echo "${#targets[@]} targets, nothing found"
