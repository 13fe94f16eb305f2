package main

import (
	"path/filepath"
	"strings"
	"testing"
)

// A key goes only to the server that it was made by.
func TestKeyOfDevStaysAtItsServer(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	dir := t.TempDir()
	const own = "http://127.0.0.1:1"
	if err := (demo{URL: own, APIKey: "kps_secret"}).write(filepath.Join(dir, demoFile)); err != nil {
		t.Fatal(err)
	}
	for url, want := range map[string]string{"http://127.0.0.1:2": "no API key", own + "/": "connection refused", "": "connection refused"} {
		arguments := []string{"events", "list", "--data-dir", dir}
		if url != "" {
			arguments = append(arguments, "--url", url)
		}
		if code, text := runCaptured(t, arguments...); code == 0 || !strings.Contains(text, want) || strings.Count(text, "\n") != 1 {
			t.Errorf("--url %q: exit %d, %q, want one line with %q", url, code, text, want)
		}
	}
}
