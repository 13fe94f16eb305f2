package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
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

func TestServerThatSaysNothingIsGivenUp(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	usual := answerTimeout
	answerTimeout = 50 * time.Millisecond
	t.Cleanup(func() { answerTimeout = usual })
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-ended }))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(ended) })
	if code, text := runCaptured(t, "endpoints", "list", "--url", server.URL, "--api-key", "kps_secret"); code != 1 || !strings.Contains(text, "timeout") {
		t.Errorf("exit %d, %q", code, text)
	}
}

// There is no session to resume when there was none.
func TestListeningThatNeverBeganEndsWithoutAWord(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	arguments := []string{"listen", "--forward", "http://127.0.0.1:1", "--url", "http://127.0.0.1:1", "--api-key", "kps_secret"}
	if code, text := runCapturedUntil(ctx, t, arguments...); code != 0 || strings.Contains(text, "resume") {
		t.Errorf("exit %d, %q", code, text)
	}
}

// A key of the environment is not shown to a log of somebody else's that is audited.
func TestKeyOfTheEnvironmentIsForItsServer(t *testing.T) {
	t.Setenv("KAPSEL_API_KEY", "kps_secret")
	const logURL = "https://log.example.com/log/1"
	for server, want := range map[string]string{"": "kps_secret", "https://LOG.example.com/": "kps_secret", "http://127.0.0.1:8080": ""} {
		t.Setenv("KAPSEL_URL", server)
		flags := &logFlags{keys: []string{"127.0.0.1:18080/log/1+b01142a1+ATn9EBInK/KWZ4yuDkGvGjOfLddMBcxxu2f5Ha8084o1"}}
		if _, err := flags.client(logURL); err != nil {
			t.Fatal(err)
		}
		if flags.apiKey != want {
			t.Errorf("KAPSEL_URL %q: the key is %q, want %q", server, flags.apiKey, want)
		}
	}
}

// What no command could use is not remembered.
func TestProfilesAreOfServers(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CONFIG_HOME", "")
	for _, wrong := range [][2]string{
		{"", "kps_a"}, {"kapsel.example.com", "kps_a"}, {"https://a:b@kapsel.example.com", "kps_a"}, {"https://kapsel.example.com/?a=b", "kps_a"},
		{"https://kapsel.example.com", "a"}, {"https://kapsel.example.com", "kps_a b"}, {"https://kapsel.example.com", ""},
	} {
		set := newRoot()
		set.SetArgs([]string{"profiles", "set", "one", "--url", wrong[0]})
		set.SetIn(strings.NewReader(wrong[1] + "\n"))
		if err := set.ExecuteContext(t.Context()); err == nil || !isWrongCall(err) {
			t.Errorf("%q was taken: %v", wrong, err)
		}
	}
	if all, err := readProfiles(); err != nil || len(all.Profiles) != 0 {
		t.Errorf("%d profiles are remembered, %v", len(all.Profiles), err)
	}
}
