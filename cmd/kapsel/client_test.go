package main

import (
	"net/http"
	"net/http/httptest"
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

// Nor does it go where that server redirects to.
func TestKeyIsNotRedirected(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s came with %q", r.Method, r.URL, r.Header["Authorization"])
	}))
	t.Cleanup(elsewhere.Close)
	for _, status := range []int{http.StatusMovedPermanently, http.StatusPermanentRedirect} {
		server := httptest.NewServer(http.RedirectHandler(elsewhere.URL, status))
		t.Cleanup(server.Close)
		for _, command := range [][]string{{"endpoints", "list"}, {"tail"}, {"listen", "--forward", "http://127.0.0.1:1"}} {
			arguments := append(command, "--url", server.URL, "--api-key", "kps_secret")
			if code, text := runCaptured(t, arguments...); code != 2 || !strings.Contains(text, "redirects to "+elsewhere.URL) {
				t.Errorf("%v after status %d: exit %d, %q", command, status, code, text)
			}
		}
	}
}
