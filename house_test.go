package kapsel_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kapsel-dev/kapsel/"

// mayImport says which of our own packages each package may use (docs/architecture.md). Imports go down the list only.
var mayImport = map[string][]string{
	"cmd/kapsel":               {"gen", "internal/bench", "internal/embedpg", "internal/id", "internal/node", "internal/signature", "internal/telemetry", "internal/tenant", "internal/tlog", "sdk/go/verify", "store"},
	"internal/node":            {"internal/delivery", "internal/id", "internal/ingest", "internal/ledger", "internal/route", "internal/secret", "internal/tenant", "internal/tlog", "server", "store"},
	"server":                   {"gen", "internal/delivery", "internal/id", "internal/ingest", "internal/route", "internal/secret", "internal/signature", "internal/tenant", "internal/tlog", "sdk/go/verify", "store"},
	"internal/ingest":          {"internal/delivery", "internal/id", "internal/ledger", "internal/route", "internal/signature", "store"},
	"internal/delivery":        {"gen", "internal/id", "internal/ledger", "internal/route", "store"},
	"internal/ledger":          {"gen", "internal/id", "store"},
	"internal/tlog":            {"internal/tlog", "sdk/go/verify", "store"},
	"internal/tlog/checkpoint": {"internal/tlog/merkle"},
	"internal/tlog/merkle":     {},
	"internal/tenant":          {"store"},
	"internal/route":           {"gen", "internal/id", "internal/secret", "internal/signature", "store"},
	"internal/signature":       {},
	"internal/secret":          {},
	"internal/telemetry":       {},
	"internal/id":              {},
	"internal/bench":           {},
	"internal/embedpg":         {},
	"internal/embedpg/pgtest":  {"internal/embedpg"},
	"internal/chaos":           {"gen", "internal/bench", "internal/embedpg", "internal/id", "internal/tenant", "sdk/go/verify", "store"},
	"sdk/go/verify":            {"gen"},
	"store":                    {"migrations"},
	"migrations":               {},
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
