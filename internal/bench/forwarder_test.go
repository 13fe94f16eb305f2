package bench

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

const testSecret = "it's a secret to everybody"

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// forwarder is a webhook service in miniature: it answers 202, then posts the body to the
// sink, and is its own probe.
type forwarder struct {
	t    *testing.T
	url  string
	sink *Sink
	// answer, when set, replaces the 202; it returns how often to forward the body.
	answer func(w http.ResponseWriter, r *http.Request, id uint64) (forwards int)

	mu         sync.Mutex
	deliveries map[string]int // posts by X-GitHub-Delivery
	attempts   atomic.Int64
	client     *http.Client
	sending    sync.WaitGroup
}

// startForwarder runs a sink and a forwarder to it until the test ends.
func startForwarder(t *testing.T) *forwarder {
	t.Helper()
	sink, err := NewSink("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startForwarderTo(t, sink)
}

// startForwarderTo does so with a sink that does not run yet.
func startForwarderTo(t *testing.T, sink *Sink) *forwarder {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sink.Run(ctx) }()
	f := &forwarder{
		t: t, sink: sink, deliveries: make(map[string]int),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16, MaxConnsPerHost: 16}},
	}
	server := httptest.NewServer(f)
	f.url = server.URL + "/ingest/ep_test"
	t.Cleanup(func() {
		server.Close()
		f.sending.Wait()
		f.client.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("sink ended with %v", err)
		}
	})
	return f
}

func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Errorf("read a webhook: %v", err)
	}
	mac := hmac.New(sha256.New, []byte(testSecret))
	mac.Write(body)
	if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); r.Header.Get("X-Hub-Signature-256") != want {
		f.t.Errorf("signature: got %q, want %q", r.Header.Get("X-Hub-Signature-256"), want)
	}
	_, id, ok := readMark(body)
	if !ok || !json.Valid(body) {
		f.t.Errorf("not a marked JSON body: %s", body)
	}
	f.mu.Lock()
	f.deliveries[r.Header.Get("X-GitHub-Delivery")]++
	f.mu.Unlock()

	forwards := 1
	if f.answer != nil {
		forwards = f.answer(w, r, id)
	} else {
		w.WriteHeader(http.StatusAccepted)
	}
	f.sending.Go(func() {
		for range forwards {
			f.attempts.Add(1)
			answer, err := f.client.Post(f.sink.URL(), "application/json", bytes.NewReader(body))
			if err != nil {
				f.t.Errorf("forward: %v", err)
				return
			}
			io.Copy(io.Discard, answer.Body)
			answer.Body.Close()
		}
	})
}

func (f *forwarder) Progress(context.Context) (Progress, error) {
	n := f.attempts.Load()
	return Progress{Recorded: 1000 + n, Sealed: 1000 + n, RoundTrips: 2 * n, WALBytes: 4000 * n}, nil
}

func (f *forwarder) Seals() []time.Duration { return []time.Duration{time.Second} }

func (f *forwarder) Prove(context.Context) (time.Duration, error) { return 3 * time.Millisecond, nil }

// run measures the forwarder with a short configuration.
func (f *forwarder) run(cfg Config) Result {
	f.t.Helper()
	cfg.IngestURL, cfg.Secret = f.url, testSecret
	r, err := Run(f.t.Context(), cfg, f.sink, f)
	if err != nil {
		f.t.Fatalf("run: %v", err)
	}
	return r
}
