package kapsel_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kapsel-dev/kapsel/"

// mayImport says which of our own packages each package may use (docs/architecture.md). Imports go down the list only.
var mayImport = map[string][]string{
	"cmd/kapsel":                 {"gen", "internal/bench", "internal/durable", "internal/embedpg", "internal/fault", "internal/fsck", "internal/id", "internal/node", "internal/protocli", "internal/reseal", "internal/retention", "internal/secret", "internal/signature", "internal/telemetry", "internal/tenant", "internal/tlog", "internal/witness", "proto", "sdk/go", "sdk/go/logclient", "sdk/go/verify", "server", "store"},
	"internal/node":              {"internal/certificate", "internal/delivery", "internal/durable", "internal/fault", "internal/id", "internal/ingest", "internal/ledger", "internal/limit", "internal/retention", "internal/route", "internal/secret", "internal/signer", "internal/telemetry", "internal/tenant", "internal/tlog", "internal/watch", "internal/witness", "server", "store"},
	"server":                     {"gen", "internal/delivery", "internal/filter", "internal/id", "internal/ingest", "internal/ledger", "internal/limit", "internal/route", "internal/schema", "internal/secret", "internal/signature", "internal/telemetry", "internal/tenant", "internal/tlog", "internal/watch", "proto", "sdk/go/verify", "store"},
	"internal/ingest":            {"internal/delivery", "internal/fault", "internal/filter", "internal/id", "internal/ledger", "internal/limit", "internal/route", "internal/signature", "internal/telemetry", "store"},
	"internal/delivery":          {"gen", "internal/fault", "internal/id", "internal/ledger", "internal/route", "internal/telemetry", "store"},
	"internal/limit":             {"internal/fault", "internal/route", "internal/telemetry", "store"},
	"internal/ledger":            {"gen", "internal/fault", "internal/id", "internal/telemetry", "store"},
	"internal/tlog":              {"gen", "internal/durable", "internal/fault", "internal/signer", "internal/telemetry", "internal/tlog", "sdk/go/verify", "store"},
	"internal/tlog/checkpoint":   {"internal/tlog/merkle"},
	"internal/tlog/merkle":       {},
	"internal/retention":         {"internal/telemetry", "store"},
	"internal/watch":             {"store"},
	"internal/tenant":            {"internal/id", "store"},
	"internal/route":             {"gen", "internal/fault", "internal/filter", "internal/id", "internal/jsonpath", "internal/schema", "internal/secret", "internal/signature", "store"},
	"internal/filter":            {"internal/pattern"},
	"internal/signature":         {"internal/jsonpath"},
	"internal/jsonpath":          {},
	"internal/schema":            {"internal/pattern"},
	"internal/pattern":           {},
	"internal/secret":            {"internal/durable"},
	"internal/signer":            {},
	"internal/protocli":          {},
	"internal/telemetry":         {},
	"internal/reseal":            {"internal/route", "internal/secret", "store"},
	"internal/certificate":       {},
	"internal/certtest":          {},
	"internal/id":                {},
	"internal/fault":             {},
	"internal/fsck":              {"gen", "internal/id", "internal/tlog", "sdk/go/verify"},
	"internal/bench":             {},
	"internal/doctest":           {},
	"internal/embedpg":           {},
	"internal/embedpg/pgtest":    {"internal/embedpg"},
	"internal/sdktest":           {"internal/chaos", "sdk/go"},
	"internal/chaos":             {"gen", "internal/bench", "internal/embedpg", "internal/id", "internal/tenant", "sdk/go/verify", "store"},
	"sdk/go/examples/quickstart": {"gen", "sdk/go"},
	"sdk/go":                     {"gen", "sdk/go/verify"},
	"sdk/go/logclient":           {"sdk/go/verify"},
	"sdk/go/verify":              {"gen"},
	"store":                      {"migrations"},
	"migrations":                 {},
	"internal/witness":           {"internal/durable", "internal/telemetry", "internal/tlog"},
	"internal/durable":           {},
}

func TestPackagesImportDownwardsOnly(t *testing.T) {
	output, err := exec.CommandContext(t.Context(), "go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for line := range strings.Lines(string(output)) {
		fields := strings.Fields(line)
		name := strings.TrimPrefix(fields[0], module)
		if strings.HasPrefix(name, "gen/") || strings.HasPrefix(name, "tools/") || name == "proto" || name+"/" == module {
			continue
		}
		allowed, listed := mayImport[name]
		if !listed {
			t.Errorf("package %s is not in the list: say what it may import", name)
			continue
		}
		for _, path := range fields[1:] {
			imported, ours := strings.CutPrefix(path, module)
			if ours && !slices.ContainsFunc(allowed, func(a string) bool { return imported == a || strings.HasPrefix(imported, a+"/") }) {
				t.Errorf("%s imports %s: it may import %v only", name, imported, allowed)
			}
		}
	}
}

// Requests must not get at the engine's role: package server holds store.Requests, which has no way to it.
func TestRequestsDoNotHoldTheEnginesPool(t *testing.T) {
	files, err := filepath.Glob("server/*.go")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files of package server, %v", len(files), err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range []string{"store.DB\n", "store.DB ", "store.DB)", "store.DB,", "store.Open(", ".Engine()", "pgxpool"} {
			if strings.Contains(string(source), word) {
				t.Errorf("%s has %q: take store.Requests, or have a package behind the edge do it", file, strings.TrimSpace(word))
			}
		}
	}
}
