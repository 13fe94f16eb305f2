package node

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNodeWithoutTheServicesKeysetDoesNotStart(t *testing.T) {
	r, _ := one(t, nil)
	config := r.config()
	config.StateDir = t.TempDir()
	if n, err := Start(t.Context(), config); err == nil {
		r.stop(n)
		t.Error("a node made a keyset of its own beside secrets that it cannot read")
	} else if !strings.Contains(err.Error(), "copy it from another node") {
		t.Errorf("error %v", err)
	}
	if left, err := os.ReadDir(config.StateDir); err != nil || len(left) > 0 {
		t.Errorf("files were made: %v, %v", left, err)
	}
	if _, err := InitState(t.Context(), config.StateDir, ""); err != nil { // it is lost: go on without
		t.Fatal(err)
	}
	r.start(config)
}

func TestKeysetOfSecretsComesFromWhereTheConfigurationHasIt(t *testing.T) {
	dir := t.TempDir()
	ring, err := openKeyset(t.Context(), Config{StateDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, secretsFile))
	if err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	given := Config{StateDir: empty, SecretsKeyset: base64.StdEncoding.EncodeToString(text)}
	if other, err := openKeyset(t.Context(), given); err != nil || other.Primary() != ring.Primary() {
		t.Errorf("a keyset of the environment: %v", err)
	}
	if _, err := os.Stat(filepath.Join(empty, secretsFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file was made beside a keyset of the environment: %v", err)
	}
	if _, err := openKeyset(t.Context(), Config{StateDir: dir, SecretsKMS: "vault:x"}); err == nil || !strings.Contains(err.Error(), "awskms") {
		t.Errorf("an unknown KMS: %v", err)
	}
}
