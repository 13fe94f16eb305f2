package chaos

import (
	"crypto/sha256"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Sink is a destination that answers 200, unless it is told to fail, and counts what arrives by event. A request that
// breaks off before its body is complete does not count.
type Sink struct {
	URL string

	delay atomic.Int64 // nanoseconds

	mu       sync.Mutex
	arrivals map[string]Arrival
	last     time.Time
	failing  float64 // share of requests
	random   *Random
	keepSums bool // and no bodies
}

// Arrival is what came for one event.
type Arrival struct {
	// Count of requests.
	Count int
	// Header and Body of the first. A sink that fails keeps neither, since it is for long runs.
	Header http.Header
	Body   []byte
	// Sum is the body's SHA-256.
	Sum [sha256.Size]byte
	// Differs says that another request had another body.
	Differs bool
	// Requests in the order of their arrival.
	Requests []Request
}

// Request is one request as the sink saw it.
type Request struct {
	// Attempt is what the request says its number is.
	Attempt uint32
	Answer  Answer
}

// Answer is how a sink answers.
type Answer uint8

const (
	// Accepted is a 200.
	Accepted Answer = iota
	// Refused is a 500, 503 or 429, the last two with Retry-After.
	Refused
	// Silent closes the connection without an answer.
	Silent
	// TooLate is a 200 after the destination's timeout.
	TooLate
)

// sinkTimeout is the timeout of the destinations that a failing sink stands behind, and lateAnswer is beyond it.
const sinkTimeout, lateAnswer = 2 * time.Second, 2200 * time.Millisecond

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

// NewFailingSink starts a destination that fails a share of the requests, in all ways, at random.
func NewFailingSink(t testing.TB, r *Random, share float64) *Sink {
	t.Helper()
	s := NewSink(t)
	s.failing, s.random, s.keepSums = share, r, true
	return s
}

// SetDelay makes each answer take so long from now on.
func (s *Sink) SetDelay(d time.Duration) { s.delay.Store(int64(d)) }

// ServeHTTP counts a request and answers it.
func (s *Sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the sender was killed in the middle of it
	}
	answer, status := s.note(r.Header, body)
	if delay := time.Duration(s.delay.Load()); delay > 0 {
		time.Sleep(delay)
	}
	switch answer {
	case Accepted:
	case Refused:
		if status != http.StatusInternalServerError {
			w.Header().Set("Retry-After", "1")
		}
		w.WriteHeader(status)
	case Silent:
		panic(http.ErrAbortHandler)
	case TooLate:
		time.Sleep(lateAnswer)
	}
}

// note counts a request and decides how to answer it.
func (s *Sink) note(header http.Header, body []byte) (answer Answer, status int) {
	event, sum := header.Get("Webhook-Id"), sha256.Sum256(body)
	number, _ := strconv.ParseUint(header.Get("Kapsel-Attempt"), 10, 32) // 0 is no attempt's number, and so is found
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failing > 0 && s.random.Float64() < s.failing {
		answer = Refused + Answer(s.random.IntN(3))
		status = []int{http.StatusInternalServerError, http.StatusServiceUnavailable, http.StatusTooManyRequests}[s.random.IntN(3)]
	}
	arrival, again := s.arrivals[event]
	arrival.Count++
	arrival.Requests = append(arrival.Requests, Request{uint32(number), answer})
	if again {
		arrival.Differs = arrival.Differs || arrival.Sum != sum
	} else {
		arrival.Sum = sum
		if !s.keepSums {
			arrival.Header, arrival.Body = header.Clone(), body
		}
	}
	s.arrivals[event], s.last = arrival, time.Now()
	return answer, status
}

// Arrivals returns what came so far, by event id.
func (s *Sink) Arrivals() map[string]Arrival {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.arrivals)
}

// LastArrival is when the last request came.
func (s *Sink) LastArrival() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// AwaitAll waits until each of the posted webhooks has arrived, and returns how long that took.
func (s *Sink) AwaitAll(t testing.TB, posted []Posted, patience time.Duration) time.Duration {
	t.Helper()
	began := time.Now()
	for next := 0; ; time.Sleep(50 * time.Millisecond) {
		s.mu.Lock()
		for next < len(posted) && s.arrivals[posted[next].EventID].Count > 0 {
			next++
		}
		s.mu.Unlock()
		if next == len(posted) {
			return time.Since(began)
		}
		if time.Since(began) > patience {
			t.Fatalf("acknowledged webhook %d of %d had not arrived after %v", next, len(posted), patience)
		}
	}
}
