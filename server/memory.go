package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// callTimeout is how long a caller may take to send the body of an rpc over HTTP/1.1. Over HTTP/2 a slow stream holds up
// nobody else, and may be one that is meant to stay open.
const callTimeout = time.Minute

// maxRequestMemory bounds the request bodies that a node holds at once, and what those of rpcs are decoded to, from their first
// byte to their answer. At 10,000 webhooks a second of 1 KiB some hundred KiB are in use.
const maxRequestMemory = 256 << 20

// errNoMemory says that the bodies of other requests take all the memory that bodies may.
var errNoMemory = errors.New("too many request bodies are held at once")

// memory counts the bytes that requests hold.
type memory struct {
	max int64
	// callTimeout is how long the body of an rpc may take over HTTP/1.1.
	callTimeout time.Duration
	used        atomic.Int64
}

// take takes n bytes, and reports whether they were there. What was taken is given back with release.
func (m *memory) take(n int64) bool {
	if m.used.Add(n) > m.max {
		m.used.Add(-n)
		return false
	}
	return true
}

func (m *memory) release(n int64) { m.used.Add(-n) }

// bound counts what next reads of request bodies until it returns, and ends those that take too long.
func (m *memory) bound(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := &countedBody{ReadCloser: r.Body, memory: m}
		if r.ProtoMajor == 1 && r.Body != http.NoBody {
			body.control = http.NewResponseController(w)
		}
		defer func() { m.release(body.taken.Load()) }()
		// A copy: net/http looks at its own request's body to decide whether the connection can be used again, and must find
		// there what it put there. Otherwise the rest of a refused body would be read as the next request.
		counted := r.WithContext(context.WithValue(r.Context(), holdingKey{}, body))
		counted.Body = body
		next.ServeHTTP(w, counted)
	})
}

type holdingKey struct{}

// holdMore takes n bytes for what a request's body was made into, until the request is answered, and reports whether they were there.
func holdMore(ctx context.Context, n int64) bool {
	body, counted := ctx.Value(holdingKey{}).(*countedBody)
	return !counted || body.hold(n)
}

// countedBody takes memory for what is read through it.
type countedBody struct {
	io.ReadCloser
	memory  *memory
	taken   atomic.Int64
	control *http.ResponseController // nil: without a deadline
	began   bool
}

func (b *countedBody) Read(p []byte) (int, error) {
	if b.control != nil && !b.began {
		b.began = true
		if err := b.control.SetReadDeadline(time.Now().Add(b.memory.callTimeout)); err != nil {
			return 0, err
		}
	}
	n, err := b.ReadCloser.Read(p)
	if b.control != nil && errors.Is(err, io.EOF) {
		// The deadline is the connection's, which is still read to notice a client that leaves.
		if err := b.control.SetReadDeadline(time.Time{}); err != nil {
			return n, err
		}
	}
	if n > 0 && !b.hold(int64(n)) {
		return 0, errNoMemory
	}
	return n, err
}

func (b *countedBody) hold(n int64) bool {
	if !b.memory.take(n) {
		return false
	}
	b.taken.Add(n)
	return true
}
