package sdktest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/chaos"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// In an empty directory, with nothing but the packed SDK: a webhook's whole way, from a new endpoint to a proof that verifies.
func testQuickstart(t *testing.T, s *scene) {
	dev, sink := s.dev, chaos.NewSink(t)
	environment := append(os.Environ(), "KAPSEL_URL="+dev.Ready.URL, "KAPSEL_API_KEY="+dev.Ready.APIKey, "KAPSEL_LOG_PUBLIC_KEY="+dev.Ready.PublicKey,
		"DESTINATION_URL="+sink.URL)

	t.Run("Go", func(t *testing.T) {
		dir, goEnvironment := packGo(t)
		program, err := os.ReadFile("../../sdk/go/examples/quickstart/main.go")
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, "main.go", string(program))
		run(t, dir, goEnvironment, "go", "get", "./...")
		run(t, dir, goEnvironment, "go", "build", "-o", "quickstart", ".")
		said := run(t, dir, environment, filepath.Join(dir, "quickstart"))
		if !strings.Contains(said, "DELIVERED "+verify.LevelFull+"\n") {
			t.Errorf("it said:\n%s", said)
		}
		linked := run(t, dir, goEnvironment, "go", "list", "-deps", ".")
		for _, unwanted := range []string{"pgx", "kapsel/internal/", "kapsel/server", "kapsel/store", "cobra"} {
			if strings.Contains(linked, unwanted) {
				t.Errorf("a program with the SDK links %s", unwanted)
			}
		}
	})
	t.Run("TypeScript", func(t *testing.T) {
		dir := s.typeScript(t)
		compile(t, dir, "../../sdk/ts/examples/quickstart.ts") // its types are right
		if err := os.Rename(filepath.Join(dir, "quickstart.ts"), filepath.Join(dir, "quickstart.mjs")); err != nil {
			t.Fatal(err)
		}
		said := run(t, dir, environment, "node", "quickstart.mjs")
		if !strings.Contains(said, "DELIVERED "+verify.LevelFull+"\n") {
			t.Errorf("it said:\n%s", said)
		}
		proof, err := os.ReadFile(filepath.Join(dir, "proof.json"))
		if err != nil {
			t.Fatal(err)
		}
		report, err := verify.Verify(proof, verify.Options{TrustedKeys: []string{dev.Ready.PublicKey}})
		if err != nil || !report.Full {
			t.Errorf("the package does not verify: %v", err)
		}
	})
	if arrivals := sink.Arrivals(); len(arrivals) == 0 {
		t.Error("nothing arrived at the destination")
	}
}

// The whole program in TypeScript, and the body of main in Go, errors included, have 20 lines that are neither blank nor comments.
func TestQuickstartsAreShort(t *testing.T) {
	const most = 20
	for path, body := range map[string][2]string{
		"../../sdk/ts/examples/quickstart.ts":      {"", ""},
		"../../sdk/go/examples/quickstart/main.go": {"\nfunc main() {\n", "\n}\n"},
	} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, program, found := strings.Cut(string(text), body[0])
		if body[1] != "" {
			var after string
			if program, after, found = strings.Cut(program, body[1]); after != "" {
				t.Errorf("%s has more than main", path)
			}
		}
		lines := 0
		for line := range strings.Lines(program) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
				lines++
			}
			if len(line) > 120 {
				t.Errorf("%s has a line of %d bytes: %s", path, len(line), line)
			}
		}
		if !found || lines == 0 || lines > most {
			t.Errorf("%s has %d lines, want at most %d", path, lines, most)
		}
	}
}
