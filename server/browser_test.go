package server

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestEveryAnswerTellsBrowsersToKeepToIt(t *testing.T) {
	handler := secured(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/page" {
			w.Header().Set("Content-Security-Policy", "default-src 'self'")
		}
	}), true)
	for path, want := range map[string]map[string]string{
		"/readyz": {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Strict-Transport-Security": "max-age=31536000"},
		"/page":        {"Content-Security-Policy": "default-src 'self'"},
		"/ingest/ep_1": {"X-Content-Type-Options": "nosniff", "Strict-Transport-Security": "max-age=31536000"},
	} {
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		for name, value := range want {
			if got := answer.Header().Values(name); len(got) != 1 || got[0] != value {
				t.Errorf("%s: %s = %q, want %q", path, name, got, value)
			}
		}
	}
	answer := httptest.NewRecorder()
	secured(http.NotFoundHandler(), false).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/", nil))
	if got := answer.Header().Get("Strict-Transport-Security"); got != "" {
		t.Errorf("HSTS without TLS: %q", got)
	}
}

func TestOnlyConfiguredOriginsMayCallTheAPI(t *testing.T) {
	calls := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	ask := func(origins []string, origin, method string) *httptest.ResponseRecorder {
		request := httptest.NewRequest(method, "/kapsel.v1.EventService/ListEvents", strings.NewReader("{}"))
		request.Header.Set("Origin", origin)
		if method == http.MethodOptions {
			request.Header.Set("Access-Control-Request-Method", http.MethodPost)
			request.Header.Set("Access-Control-Request-Headers", "authorization,connect-protocol-version,content-type")
		}
		answer := httptest.NewRecorder()
		shared(calls, origins).ServeHTTP(answer, request)
		return answer
	}
	allowed := []string{"https://app.example.com"}
	for _, method := range []string{http.MethodOptions, http.MethodPost} {
		for origin, want := range map[string]string{
			"https://app.example.com": "https://app.example.com", "https://evil.example.com": "", "http://app.example.com": "",
			"https://app.example.com.evil.com": "", "null": "",
		} {
			answer := ask(allowed, origin, method)
			if got := answer.Header().Get("Access-Control-Allow-Origin"); got != want {
				t.Errorf("%s from %s: allowed %q, want %q", method, origin, got, want)
			}
			if answer.Header().Get("Access-Control-Allow-Credentials") != "" {
				t.Error("credentials are allowed")
			}
		}
	}
	if got := ask(allowed, "https://app.example.com", http.MethodOptions).Header().Get("Access-Control-Allow-Headers"); !strings.Contains(got, "authorization") {
		t.Errorf("a page may send %q", got)
	}
	if got := ask(nil, "https://app.example.com", http.MethodPost).Header().Get("Access-Control-Allow-Origin"); got != "" {
		t.Errorf("without configuration %q is allowed", got)
	}
	if got := ask([]string{"*"}, "https://any.example.com", http.MethodPost).Header().Get("Access-Control-Allow-Origin"); got != "*" {
		t.Errorf("with * %q is allowed", got)
	}
}
