package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStateIsMadeOnceAndInstalledWithItsMode(t *testing.T) {
	made, node := filepath.Join(t.TempDir(), "made"), filepath.Join(t.TempDir(), "node")
	if code, text := runCaptured(t, "state", "init", "--state-dir", made); code != 0 {
		t.Fatalf("init: exit code %d, %s", code, text)
	}
	key := readFile(t, filepath.Join(made, "log.key"))
	if code, text := runCaptured(t, "state", "init", "--state-dir", made); code != 0 || readFile(t, filepath.Join(made, "log.key")) != key {
		t.Fatalf("a second init: exit code %d, %s; the key must stay", code, text)
	}
	for _, name := range []string{"log.key", "secrets.keyset"} { // as a secret volume shows them
		if err := os.Chmod(filepath.Join(made, name), 0o440); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if code, text := runCaptured(t, "state", "install", "--from", made, "--state-dir", node); code != 0 {
			t.Fatalf("install: exit code %d, %s", code, text)
		}
	}
	if code, text := runCaptured(t, "state", "init", "--state-dir", node); code != 0 { // reads them as a node does
		t.Errorf("installed files are refused: exit code %d, %s", code, text)
	}

	edge := filepath.Join(t.TempDir(), "edge")
	if code, text := runCaptured(t, "state", "install", "--from", made, "--state-dir", edge, "--keyset-only"); code != 0 {
		t.Fatalf("install of the keyset: exit code %d, %s", code, text)
	}
	if files, err := os.ReadDir(edge); err != nil || len(files) != 1 || files[0].Name() != "secrets.keyset" {
		t.Errorf("a node without the role seal got %v, %v: want the keyset only", files, err)
	}

	other := filepath.Join(t.TempDir(), "other")
	if code, text := runCaptured(t, "state", "init", "--state-dir", other); code != 0 {
		t.Fatalf("init: exit code %d, %s", code, text)
	}
	code, text := runCaptured(t, "state", "install", "--from", other, "--state-dir", node)
	if code != 1 || !strings.Contains(text, "another key") {
		t.Errorf("another log key: exit code %d, %q, want a refusal", code, text)
	}
	if readFile(t, filepath.Join(node, "log.key")) != key {
		t.Error("another log key was put in the place of the first")
	}
	if code, _ := runCaptured(t, "state", "install", "--from", t.TempDir(), "--state-dir", node); code != 1 {
		t.Errorf("no files to install: exit code %d, want 1", code)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
