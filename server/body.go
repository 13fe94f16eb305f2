package server

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

const (
	// webhookTimeout is how long a source may take to send a body.
	webhookTimeout = 15 * time.Second
	// firstChunk is read of a body whose length was not announced; it doubles up to the bound.
	firstChunk = 4 << 10
)

// readBody reads a body of at most maxBytes, and never more than one byte beyond them. It takes memory for what it
// returns, which the caller releases.
func (h *ingestHandler) readBody(w http.ResponseWriter, r *http.Request, maxBytes int) ([]byte, *problem) {
	if r.ContentLength > int64(maxBytes) {
		return nil, tooLarge(maxBytes)
	}
	if r.ContentLength == 0 {
		return []byte{}, nil
	}
	// The deadline is the connection's: it must be gone before the commit is waited for, since net/http goes on reading
	// in the background to notice a client that leaves.
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(h.bodyTimeout)); err != nil {
		return nil, brokenBody(err)
	}
	body, refused := h.readAll(r, maxBytes)
	if refused != nil {
		return nil, refused
	}
	if err := control.SetReadDeadline(time.Time{}); err != nil {
		h.api.memory.release(int64(len(body)))
		return nil, brokenBody(err)
	}
	return body, nil
}

func (h *ingestHandler) readAll(r *http.Request, maxBytes int) ([]byte, *problem) {
	if r.ContentLength > 0 {
		if !h.api.memory.take(r.ContentLength) {
			return nil, noMemory()
		}
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			h.api.memory.release(r.ContentLength)
			return nil, brokenBody(err)
		}
		return body, nil
	}
	return h.readUnannounced(r.Body, maxBytes)
}

// readUnannounced reads a body without Content-Length: chunked, or HTTP/2.
func (h *ingestHandler) readUnannounced(from io.Reader, maxBytes int) ([]byte, *problem) {
	taken, size := 0, 0
	body := []byte{}
	for {
		if len(body) == size {
			if len(body) > maxBytes {
				h.api.memory.release(int64(taken))
				return nil, tooLarge(maxBytes)
			}
			size = min(max(firstChunk, 2*size), maxBytes+1)
			if !h.api.memory.take(int64(size - taken)) {
				h.api.memory.release(int64(taken))
				return nil, noMemory()
			}
			taken = size
			body = append(make([]byte, 0, size), body...)
		}
		n, err := from.Read(body[len(body):size])
		body = body[:len(body)+n]
		switch {
		case errors.Is(err, io.EOF) && len(body) <= maxBytes:
			h.api.memory.release(int64(taken - len(body)))
			return body, nil
		case errors.Is(err, io.EOF):
			h.api.memory.release(int64(taken))
			return nil, tooLarge(maxBytes)
		case err != nil:
			h.api.memory.release(int64(taken))
			return nil, brokenBody(err)
		}
	}
}

func tooLarge(maxBytes int) *problem {
	p := newProblem(http.StatusRequestEntityTooLarge, kapselv1.ErrorReason_ERROR_REASON_PAYLOAD_TOO_LARGE,
		fmt.Sprintf("the endpoint takes payloads of at most %d bytes", maxBytes))
	p.closes = true
	return p
}

func noMemory() *problem {
	r := refusalOf(errNoMemory)
	return &problem{status: http.StatusServiceUnavailable, reason: r.reason, detail: r.message, retry: r.retry, closes: true}
}

// brokenBody is the answer to a body that did not come, or not as its framing says.
func brokenBody(err error) *problem {
	p := newProblem(http.StatusBadRequest, kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "the request's body ends early or is not framed as announced")
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.status = http.StatusRequestTimeout
		p.detail = "the request's body did not come in time"
	}
	p.closes = true
	return p
}
