package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthSaysWhyANodeIsNotReady(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			http.Error(w, "the database is away", http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	if code, text := runCaptured(t, "health", server.URL+"/livez"); code != 0 {
		t.Errorf("a node that answers 200: exit code %d, %s", code, text)
	}
	if code, text := runCaptured(t, "health", server.URL+"/readyz"); code != 1 || !strings.Contains(text, "the database is away") {
		t.Errorf("a node that answers 503: exit code %d, %q, want 1 and the reason", code, text)
	}
	server.Close()
	if code, text := runCaptured(t, "health", server.URL+"/readyz"); code != 1 || !strings.Contains(text, "no answer") {
		t.Errorf("no node: exit code %d, %q, want 1", code, text)
	}
	if code, _ := runCaptured(t, "health", "::"); code != 2 {
		t.Errorf("no URL: exit code %d, want 2", code)
	}
}
