package sdktest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// tsDirectory is the TypeScript SDK, seen from here.
const tsDirectory = "../../sdk/ts"

// noNode is the status of tools/node-modules.sh where there is no Node.js to use.
const noNode = 3

// RequireNode brings the npm packages of the TypeScript SDK to what its lock file says. It skips the test where there is no
// Node.js, or where npm cannot fetch them.
func RequireNode(t testing.TB) {
	t.Helper()
	if problem := nodeProblem(t); problem != "" {
		t.Skip(problem)
	}
}

// nodeProblem is RequireNode for tests that go on without: what is the matter, "" when nothing is.
func nodeProblem(t testing.TB) string {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "../../tools/node-modules.sh", "sdk/ts").CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if exit.ExitCode() == noNode {
			return "there is no Node.js 20 or later with npm: install it to test the TypeScript SDK"
		}
		return "npm cannot fetch the packages of sdk/ts: " + string(output)
	}
	if err != nil {
		t.Fatalf("look for Node.js: %v", err)
	}
	return ""
}

func copyFile(t testing.TB, path, dir string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// lastWords is what a program wrote to standard error.
type lastWords struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (w *lastWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}
