package chaos

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Load is a number of webhooks from sources that do not give up: each is posted, with the same delivery id, until it is
// acknowledged.
type Load struct {
	// IngestURLs are the addresses to post to. With several, each try goes to the next one.
	IngestURLs []string
	// Secret to sign with, as GitHub does.
	Secret string
	// Count of webhooks, PerSecond and at most Conns of them at a time.
	Count, PerSecond, Conns int
}

// Posted is a webhook and what its source was told.
type Posted struct {
	DeliveryID string
	Sum        [sha256.Size]byte // of the body
	EventID    string            // of the 202
	Tries      int
	// Refusals are the answers before the 202.
	Refusals []Refusal
	// Broken counts the tries without an answer.
	Broken int
}

// Refusal is an answer other than 202.
type Refusal struct {
	Status int
	After  time.Duration
	Body   string
}

const (
	sourceTimeout = 20 * time.Second
	sourcePause   = 50 * time.Millisecond
)

// Sources are a load under way.
type Sources struct {
	posted []Posted
	acked  atomic.Int64
	done   chan struct{}

	mu      sync.Mutex
	last    time.Time // when a webhook was acknowledged
	longest time.Duration
}

// Start begins to post. It ends when all webhooks are acknowledged, or when ctx ends.
func (l Load) Start(ctx context.Context, r *Random) *Sources {
	s := &Sources{posted: make([]Posted, l.Count), done: make(chan struct{})}
	run := r.Uint64()
	fillers := make([]int, l.Count)
	for i := range s.posted {
		s.posted[i].DeliveryID = fmt.Sprintf("%016x-%d", run, i)
		fillers[i] = 100 + r.IntN(2000)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: l.Conns, MaxConnsPerHost: l.Conns}
	client := &http.Client{Transport: transport, Timeout: sourceTimeout}
	var next atomic.Int64
	began := time.Now()
	s.last = began
	var sources sync.WaitGroup
	for range l.Conns {
		sources.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(l.Count) {
					return
				}
				time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(l.PerSecond))))
				body := fmt.Appendf(nil, `{"action":"chaos","number":%d,"filler":"%s"}`, i, strings.Repeat("x", fillers[i]))
				s.posted[i].Sum = sha256.Sum256(body)
				if !l.post(ctx, client, int(i), &s.posted[i], body) {
					return
				}
				s.acknowledge()
			}
		})
	}
	go func() {
		sources.Wait()
		transport.CloseIdleConnections()
		close(s.done)
	}()
	return s
}

func (s *Sources) acknowledge() {
	s.acked.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.longest, s.last = max(s.longest, now.Sub(s.last)), now
}

// LongestGap is the longest time in which no webhook was acknowledged, from the start on.
func (s *Sources) LongestGap() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.longest
}

// AwaitAcked waits until n webhooks are acknowledged.
func (s *Sources) AwaitAcked(t testing.TB, n int) {
	t.Helper()
	for s.acked.Load() < int64(n) {
		select {
		case <-s.done:
			if s.acked.Load() < int64(n) {
				t.Fatalf("%d of %d webhooks were acknowledged before the scenario's time was over", s.acked.Load(), len(s.posted))
			}
		case <-time.After(time.Millisecond):
		}
	}
}

// Wait returns all webhooks, in the order of their making, when each is acknowledged.
func (s *Sources) Wait(t testing.TB) []Posted {
	t.Helper()
	<-s.done
	s.AwaitAcked(t, len(s.posted))
	return s.posted
}

// Broken is how many tries of all webhooks got no answer.
func Broken(posted []Posted) (n int) {
	for _, p := range posted {
		n += p.Broken
	}
	return n
}

// post tries until it gets a 202, or until ctx ends, when it returns false.
func (l Load) post(ctx context.Context, client *http.Client, i int, p *Posted, body []byte) bool {
	for ctx.Err() == nil {
		url := l.IngestURLs[(i+p.Tries)%len(l.IngestURLs)]
		p.Tries++
		began := time.Now()
		status, answer, err := Post(ctx, client, url, l.Secret, p.DeliveryID, "push", body)
		switch {
		case err != nil:
			p.Broken++
		case status == http.StatusAccepted:
			var receipt struct {
				EventID string `json:"event_id"`
			}
			if err := json.Unmarshal(answer, &receipt); err == nil && receipt.EventID != "" {
				p.EventID = receipt.EventID
				return true
			}
			fallthrough // a 202 that names no event is no receipt
		default:
			p.Refusals = append(p.Refusals, Refusal{status, time.Since(began), string(answer)})
		}
		time.Sleep(sourcePause)
	}
	return false
}

// Post posts one webhook as GitHub does: docs.github.com, "Validating webhook deliveries" and "Webhook events and payloads".
func Post(ctx context.Context, client *http.Client, url, secret, deliveryID, event string, body []byte) (status int, answer []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "GitHub-Hookshot/chaos")
	request.Header.Set("X-GitHub-Delivery", deliveryID)
	request.Header.Set("X-GitHub-Event", event)
	request.Header.Set("X-Hub-Signature-256", GitHubSignature(secret, body))
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, 64<<10))
	return response.StatusCode, answer, err
}

// GitHubSignature is the value of X-Hub-Signature-256.
func GitHubSignature(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}
