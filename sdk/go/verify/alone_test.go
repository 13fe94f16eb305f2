package verify_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A verifier that is built of this package alone has no code of the server and none that could reach a network, and
// verifies a package of today.
func TestVerifierStandsAlone(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/kapsel-dev/kapsel/"
	for path := range strings.FieldsSeq(string(out)) {
		if ours, found := strings.CutPrefix(path, module); found && ours != "sdk/go/verify" && ours != "gen/kapsel/leaf/v1" {
			t.Errorf("it contains %s", ours)
		}
		if path == "net" || strings.HasPrefix(path, "net/") || path == "os/exec" {
			t.Errorf("it contains %s", path)
		}
	}
	program := filepath.Join(t.TempDir(), "alone")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./testdata/alone").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l := attemptLog(t)
	for change, want := range map[string]string{"": "full proof", "succeeded": "refused"} {
		file := filepath.Join(t.TempDir(), "proof.json")
		data := encode(t, l.pack(t, 12, 40))
		if change != "" {
			data = []byte(strings.Replace(string(data), change, strings.ToUpper(change), 1))
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		command := exec.CommandContext(t.Context(), program, file, l.verifierKey())
		command.Env = []string{}
		if out, _ := command.CombinedOutput(); !strings.Contains(string(out), want) {
			t.Errorf("got %q, want %q", out, want)
		}
	}
}
