package server

import (
	"errors"
	"io"
	"net/http"
	"sync/atomic"
)

// maxRequestMemory bounds the request bodies that a node holds at once, from their first byte to their answer. At 10,000
// webhooks a second of 1 KiB some hundred KiB are in use.
const maxRequestMemory = 256 << 20

// errNoMemory says that the bodies of other requests take all the memory that bodies may.
var errNoMemory = errors.New("too many request bodies are held at once")

// memory counts the bytes that requests hold.
type memory struct {
	max  int64
	used atomic.Int64
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

// bound counts what next reads of request bodies until it returns.
func (m *memory) bound(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := &countedBody{ReadCloser: r.Body, memory: m}
		defer func() { m.release(body.taken.Load()) }()
		r.Body = body
		next.ServeHTTP(w, r)
	})
}

// countedBody takes memory for what is read through it.
type countedBody struct {
	io.ReadCloser
	memory *memory
	taken  atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		if !b.memory.take(int64(n)) {
			return 0, errNoMemory
		}
		b.taken.Add(int64(n))
	}
	return n, err
}
