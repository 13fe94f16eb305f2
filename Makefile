# build, run, test and bench need only Go (and PostgreSQL's server binaries, see README.md). generate and check also build
# the tools that tools/*.mod pin, which takes a few minutes the first time and a C compiler for sqlc. What is TypeScript is
# generated, checked and tested where there is Node.js 20 or later with npm, and left out, with a word about it, where there is not.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BUF := go tool -modfile=tools/buf.mod buf
SQLC := go tool -modfile=tools/sqlc.mod sqlc
STATICCHECK := go tool -modfile=tools/staticcheck.mod staticcheck

# The version is stamped from git where git can be asked (it refuses in a clone that belongs to someone else).
VCS := $(shell git status --porcelain >/dev/null 2>&1 && echo true || echo false)

# Arguments for run and bench: make bench ARGS="--rate 500 --json"
ARGS ?=

.PHONY: help
help: ## Show this list.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: build
build: ## Build bin/kapsel.
	go build -trimpath -buildvcs=$(VCS) -o bin/kapsel ./cmd/kapsel

.PHONY: run
run: build ## Start everything on this machine: database, demo endpoint and destination.
	bin/kapsel dev $(ARGS)

.PHONY: test
test: test-tools ## Run all tests.
	go test -timeout 20m ./...
	tools/test-tagged.sh
	tools/fuzz.sh 12s internal/tlog internal/witness sdk/go/verify

.PHONY: test-tools
test-tools:
	tools/test-tools.sh

.PHONY: chaos
chaos: ## Run a seeded storm of failures: make chaos ARGS="--seed 7 --webhooks 100000" (docs/operations.md).
	go test ./internal/chaos -run TestStorm -count=1 -v -timeout 24h -args $(ARGS)

# For how long, and with how many webhooks a second.
SOAK ?= 1h
SOAK_RATE ?= 200

.PHONY: soak
soak: ## Keep a node under steady load and see that nothing grows: make soak SOAK=10m SOAK_RATE=500 ARGS="-soak-json FILE".
	go test ./internal/chaos -run TestSoakStaysFlat -count=1 -v -timeout 48h -args -soak $(SOAK) -soak-rate $(SOAK_RATE) $(ARGS)

# Time of all fuzz targets together. make test fuzzes those of the log's formats, a second each.
FUZZTIME ?= 10m

.PHONY: fuzz
fuzz: ## Fuzz every parser of foreign bytes, ten minutes in all: make fuzz FUZZTIME=1h.
	nice tools/fuzz.sh $(FUZZTIME)

.PHONY: vulncheck
vulncheck: ## Look for known vulnerabilities in what is called. Needs the network, so check does not run it.
	go tool -modfile=tools/govulncheck.mod govulncheck ./...

.PHONY: bench
bench: build ## Measure the whole path with a server, a sink and a generator of its own.
	bin/kapsel bench $(ARGS)

.PHONY: generate
generate: ## Generate third_party, gen, proto/contract.binpb, proto/openapi.yaml, sdk/ts/src/gen, store/*.sql.go, docs/api and docs/presets anew.
	go run ./tools/protodeps third_party
	$(BUF) generate
	$(BUF) build proto --exclude-imports -o proto/contract.binpb
	$(BUF) generate --template buf.gen.openapi.yaml
	grep -vE '^ +nullable: true$$' proto/openapi.yaml > proto/openapi.yaml.new # a word of OpenAPI 3.0, which 3.1 has not
	mv proto/openapi.yaml.new proto/openapi.yaml
	tools/generate-ts.sh
	$(SQLC) generate
	@tools/stale-queries.sh
	go run ./tools/apireference docs
	go run ./tools/presetpages docs

.PHONY: check
check: check-generated check-secrets check-go check-proto check-ts ## Check format, lint, contract and generated code.

.PHONY: check-generated
check-generated:
	tools/check-generated.sh

.PHONY: check-go
check-go:
	tools/check-format.sh
	go vet ./...
	$(STATICCHECK) ./...

.PHONY: check-secrets
check-secrets:
	tools/check-secrets.sh

.PHONY: check-proto
check-proto:
	$(BUF) lint
	$(BUF) format --diff --exit-code proto
	tools/check-breaking.sh

.PHONY: check-ts
check-ts:
	tools/check-ts.sh

.PHONY: check-deploy
check-deploy: ## Check deploy/ and the release build with their own tools (not part of check: builds Helm).
	tools/check-deploy.sh

.PHONY: release
release: ## Build release archives for every platform into dist/: make release VERSION=v1.2.3
	tools/release.sh

.PHONY: clean
clean: ## Remove what was built.
	rm -rf bin dist
