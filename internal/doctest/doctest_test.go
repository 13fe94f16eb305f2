package doctest

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/chaos"
)

func TestMain(m *testing.M) { chaos.Main(m) }

// notRun has documents whose commands are not run here, and why.
var notRun = map[string]string{
	"api.md":          "it has none",
	"architecture.md": "it has none",
	"operations.md":   "for services with databases, keys and machines of their own; internal/chaos does what it describes",
	"performance.md":  "measurements, which take minutes and a quiet machine",
	"threat-model.md": "it has none",
}

// Every command of README.md and docs/, document by document, each in a directory of its own.
func TestCommandsOfTheDocumentsWork(t *testing.T) {
	for _, program := range []string{"bash", "curl", "openssl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is missing: install it to have the commands of the documents tried", program)
		}
	}
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(documents) < 5 {
		t.Fatalf("documents %v, %v", documents, err)
	}
	presets, err := filepath.Glob("../../docs/presets/*.md")
	if err != nil || len(presets) < 5 {
		t.Fatalf("pages of presets %v, %v", presets, err)
	}
	documents = append(append(documents, presets...), "../../README.md")
	documents = slices.DeleteFunc(documents, func(path string) bool { return notRun[filepath.Base(path)] != "" })
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(chaos.Binary(t), filepath.Join(bin, "kapsel")); err != nil {
		t.Fatal(err)
	}
	caches, err := exec.CommandContext(t.Context(), "go", "env", "-json", "GOCACHE", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	var goes struct{ GOCACHE, GOMODCACHE string }
	if err := json.Unmarshal(caches, &goes); err != nil {
		t.Fatal(err)
	}
	dev := chaos.StartDev(t, "127.0.0.1:0")
	for _, path := range documents {
		t.Run(filepath.Base(path), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			blocks, err := commands(string(text))
			if err != nil {
				t.Fatal(err)
			}
			var said bytes.Buffer
			shell := exec.CommandContext(t.Context(), "bash", "-c", script(blocks))
			shell.Dir, shell.Stdout, shell.Stderr = t.TempDir(), &said, &said
			shell.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+t.TempDir(), "SOURCE="+root, "GOCACHE="+goes.GOCACHE, "GOMODCACHE="+goes.GOMODCACHE,
				"KAPSEL_DATA_DIR="+dev.DataDir(), // where `make run` would have it anyway
				"KAPSEL_URL="+dev.Ready.URL, "KAPSEL_API_KEY="+dev.Ready.APIKey, "KAPSEL_LOG_PUBLIC_KEY="+dev.Ready.PublicKey, "DESTINATION_URL="+dev.Ready.DestinationURL)
			if err := shell.Run(); err != nil {
				t.Errorf("%v; the last line that was begun is in here:\n%s", err, strings.ReplaceAll(said.String(), dev.Ready.APIKey, "kps_…"))
			}
		})
	}
}

func TestBlocksSayWhetherTheyAreRun(t *testing.T) {
	blocks, err := commands("a\n```sh\nkapsel version\n```\n```sh skip: it needs a provider\ncurl x\n```\n```json\n{}\n```\n")
	if err != nil || len(blocks) != 2 || blocks[0].line != 3 || blocks[1].skip != "it needs a provider" {
		t.Errorf("blocks %+v, %v", blocks, err)
	}
	if all := script([]block{{text: "false\n", exit: "1"}}); !strings.Contains(all, "test $code = 1") {
		t.Errorf("script %q", all)
	}
	if all := script(blocks); strings.Contains(all, "curl") || !strings.Contains(all, "kapsel version") {
		t.Errorf("script %q", all)
	}
	for _, wrong := range []string{"```\nkapsel serve\n```\n", "```sh skip:\nx\n```\n", "```sh\nx\n"} {
		if _, err := commands(wrong); err == nil {
			t.Errorf("%q is accepted", wrong)
		}
	}
}
