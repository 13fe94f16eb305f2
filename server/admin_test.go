package server

import (
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestAdminListenerServesProfilesHealthAndWhatIsMounted(t *testing.T) {
	var ready, concern error
	mounted := map[string]http.Handler{"/metrics": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "up 1\n") })}
	admin := must(OpenAdmin("127.0.0.1:0", false, func() error { return ready }, func() error { return concern }, mounted, log.New(io.Discard, "", 0)))(t)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { admin.Run(ctx) })
	defer running.Wait()
	defer cancel()
	client := &http.Client{Transport: new(http.Transport), Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	get := func(path, host string) (int, string) {
		request := must(http.NewRequestWithContext(t.Context(), http.MethodGet, admin.URL()+path, nil))(t)
		request.Host = host
		response := must(client.Do(request))(t)
		defer response.Body.Close()
		return response.StatusCode, string(must(io.ReadAll(response.Body))(t))
	}
	for path, want := range map[string]string{
		"/metrics": "up 1", "/livez": "alive", "/readyz": "ready", "/debug/pprof/": "goroutine", "/debug/pprof/goroutine?debug=1": "goroutine profile",
	} {
		if status, body := get(path, ""); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %.80q, want %q", path, status, body, want)
		}
	}
	if status, _ := get("/debug/pprof/", "rebound.example.com"); status != http.StatusForbidden {
		t.Errorf("a page by another name got %d", status)
	}
	if status, _ := get("/livez", "localhost:80"); status != http.StatusOK {
		t.Errorf("localhost got %d", status)
	}
	concern = errors.New("the log is not sealed")
	if status, body := get("/readyz", ""); status != http.StatusOK || !strings.Contains(body, "ready, and an operator must look: the log is not sealed") {
		t.Errorf("with a concern: %d %q", status, body)
	}
	ready = errors.New("the database is away")
	if status, body := get("/readyz", ""); status != http.StatusServiceUnavailable || !strings.Contains(body, "the database is away") {
		t.Errorf("not ready: %d %q", status, body)
	}
}

func TestAdminListenerRefusesToBeReachedByOthers(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		if admin, err := OpenAdmin(address, false, nil, nil, nil, nil); !errors.Is(err, ErrNotLoopback) {
			t.Errorf("%s: %v", address, err)
			if err == nil {
				admin.Close()
			}
		}
	}
	admin, err := OpenAdmin("0.0.0.0:0", true, nil, nil, nil, nil)
	if err != nil {
		t.Fatalf("with the flag: %v", err)
	}
	admin.listener.Close()
}
