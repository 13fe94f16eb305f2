package chaos

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Sink is a destination that answers 200, and counts what arrives by event. A request that breaks off before its body is
// complete does not count.
type Sink struct {
	URL string

	delay atomic.Int64 // nanoseconds

	mu       sync.Mutex
	arrivals map[string]Arrival
}

// Arrival is what came for one event.
type Arrival struct {
	// Count of requests.
	Count int
	// Header and Body of the first.
	Header http.Header
	Body   []byte
	// Differs says that another request had another body.
	Differs bool
}

// NewSink starts a destination that ends with the test.
func NewSink(t testing.TB) *Sink {
	t.Helper()
	s := &Sink{arrivals: make(map[string]Arrival)}
	server := httptest.NewServer(s)
	s.URL = server.URL + "/sink"
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return s
}

// SetDelay makes each answer take so long from now on.
func (s *Sink) SetDelay(d time.Duration) { s.delay.Store(int64(d)) }

// ServeHTTP counts a request and answers 200.
func (s *Sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender was killed in the middle of it
	}
	s.mu.Lock()
	arrival, again := s.arrivals[r.Header.Get("Webhook-Id")]
	arrival.Count++
	if again {
		arrival.Differs = arrival.Differs || !bytes.Equal(arrival.Body, body)
	} else {
		arrival.Header, arrival.Body = r.Header.Clone(), body
	}
	s.arrivals[r.Header.Get("Webhook-Id")] = arrival
	s.mu.Unlock()
	if delay := time.Duration(s.delay.Load()); delay > 0 {
		time.Sleep(delay)
	}
}

// Arrivals returns what came so far, by event id.
func (s *Sink) Arrivals() map[string]Arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.arrivals)
}

// AwaitAll waits until each of the posted webhooks has arrived, and returns how long that took.
func (s *Sink) AwaitAll(t testing.TB, posted []Posted, patience time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		missing := 0
		arrivals := s.Arrivals()
		for _, p := range posted {
			if arrivals[p.EventID].Count == 0 {
				missing++
			}
		}
		if missing == 0 {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			t.Fatalf("%d of %d acknowledged webhooks had not arrived after %v", missing, len(posted), patience)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
