package chaos

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The examples are the payloads that GitHub documents, as collected by the npm package @octokit/webhooks-examples.
const (
	examplesPackage   = "@octokit/webhooks-examples"
	examplesVersion   = "7.6.1"
	examplesIntegrity = "sha512-De6U3XB6O3DtCa7bKgCMzTHdeopqqZ6SNivMYJnK65ierKL1AnNIA0tkRYCRS7lwGT792d+Ps1WbfHlso6MynQ=="
)

// Example is one payload of an event type.
type Example struct {
	Event string
	Body  []byte
}

// GitHubExamples returns all examples of the package, which npm fetches once into the user's cache. Without npm or a
// network it skips the test.
func GitHubExamples(t testing.TB) []Example {
	t.Helper()
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skipf("there is no npm to fetch %s with", examplesPackage)
	}
	dir, err := fetchExamples()
	if err != nil {
		t.Skipf("%s %s could not be fetched: %v", examplesPackage, examplesVersion, err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "index.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no examples (%v)", dir, err)
	}
	var examples []Example
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var events []struct {
			Name     string
			Examples []json.RawMessage
		}
		if err := json.Unmarshal(text, &events); err != nil {
			t.Fatalf("decode %s: %v", file, err)
		}
		for _, event := range events {
			for _, body := range event.Examples {
				examples = append(examples, Example{event.Name, body})
			}
		}
	}
	return examples
}

// fetchExamples returns the package's directory.
func fetchExamples() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	dir := filepath.Join(cache, "kapsel", "webhooks-examples-"+examplesVersion)
	at := "node_modules/" + examplesPackage
	if _, err := os.Stat(filepath.Join(dir, at, "package.json")); err == nil {
		return filepath.Join(dir, at), nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "webhooks-examples-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	wants := map[string]any{"dependencies": map[string]string{examplesPackage: examplesVersion}}
	lock := map[string]any{"lockfileVersion": 3, "packages": map[string]any{
		"": wants,
		at: map[string]string{"version": examplesVersion, "integrity": examplesIntegrity},
	}}
	for name, content := range map[string]any{"package.json": wants, "package-lock.json": lock} {
		text, err := json.Marshal(content)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(work, name), text, 0o644); err != nil {
			return "", err
		}
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = work
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("npm ci: %w\n%s", err, output)
	}
	if err := os.Rename(work, dir); err != nil && !os.IsExist(err) {
		return "", err
	}
	return filepath.Join(dir, at), nil
}
