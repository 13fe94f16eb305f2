#!/usr/bin/env bash
# Fails when a Go file of the module is not formatted.
set -euo pipefail
cd "$(dirname "$0")/.."

unformatted=$(go list -e -f '{{$dir := .Dir}}{{range .GoFiles}}{{$dir}}/{{.}}
{{end}}{{range .CgoFiles}}{{$dir}}/{{.}}
{{end}}{{range .IgnoredGoFiles}}{{$dir}}/{{.}}
{{end}}{{range .TestGoFiles}}{{$dir}}/{{.}}
{{end}}{{range .XTestGoFiles}}{{$dir}}/{{.}}
{{end}}' ./... | sed '/^$/d' | xargs gofmt -l)
if [[ -n $unformatted ]]; then
  printf 'not formatted, run gofmt -w on:\n%s\n' "$unformatted" >&2
  exit 1
fi
