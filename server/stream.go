package server

import (
	"context"
	"net/http"
	"time"
)

const (
	// heartbeatInterval is how long a stream says nothing at most, as the contract has it.
	heartbeatInterval = 15 * time.Second
	// streamWriteTimeout is how long a message may wait for the window of a client that does not read. It is longer than the
	// pause between two messages, so that a stream always ends with a deadline. A connection that takes nothing at all ends
	// earlier, after quickWriteTimeout.
	streamWriteTimeout = 30 * time.Second
)

type controlKey struct{}

// controlled gives the handlers of streams a hand on the deadline for writing to their connection: a message may wait for so
// long. The server itself has none, since a stream may stay open for days.
func controlled(next http.Handler, writeTimeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lasting := &lastingStream{control: http.NewResponseController(w), timeout: writeTimeout}
		defer lasting.end()
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), controlKey{}, lasting)))
	})
}

// lastingStream is a stream that stays open.
type lastingStream struct {
	control *http.ResponseController
	timeout time.Duration
	used    bool
}

// lasting is the stream of a call.
func lasting(ctx context.Context) *lastingStream {
	stream, _ := ctx.Value(controlKey{}).(*lastingStream)
	return stream
}

// extend is called before each message. An error shows when that is written.
func (s *lastingStream) extend() {
	if s != nil {
		s.used = true
		s.control.SetWriteDeadline(time.Now().Add(s.timeout))
	}
}

// end lets the connection be used again.
func (s *lastingStream) end() {
	if s.used {
		s.control.SetWriteDeadline(time.Time{})
	}
}
