package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// maxQuickGrownBytes bounds what connections hold of requests that came only in part.
const maxQuickGrownBytes = 32 << 20

// quickServer serves the plain form of a webhook: POST /ingest/{id} over HTTP/1.1 with a Content-Length, on a connection
// that is kept. One goroutine a connection reads, has the handler answer and writes; net/http's server costs three times as
// much (docs/performance.md), since it starts a goroutine for each request to notice a client that leaves, and streams.
// A connection on which anything else comes is given to net/http with the bytes that were read, for good.
type quickServer struct {
	handler  http.Handler
	secure   *tls.Config // nil: no TLS
	others   *handedOver
	errorLog *log.Logger
	draining atomic.Bool
	grown    atomic.Int64
	// writeTimeout is for how long a client may leave what is written unread.
	writeTimeout time.Duration

	mu      sync.Mutex
	conns   map[*quickConn]struct{}
	running sync.WaitGroup
}

func newQuickServer(handler http.Handler, errorLog *log.Logger) *quickServer {
	return &quickServer{
		handler: handler, errorLog: errorLog, conns: make(map[*quickConn]struct{}), writeTimeout: quickWriteTimeout,
		others: &handedOver{conns: make(chan net.Conn), closed: make(chan struct{})},
	}
}

// serve takes over a new connection.
func (s *quickServer) serve(conn net.Conn) {
	if s.secure != nil {
		conn = tls.Server(&patient{conn, s.writeTimeout}, s.secure)
	}
	c := &quickConn{Conn: conn, server: s, template: newTemplate(conn), buffer: make([]byte, quickBufferBytes)}
	s.mu.Lock()
	if s.draining.Load() {
		s.mu.Unlock()
		conn.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.running.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.running.Done()
		if secured, ok := conn.(*tls.Conn); ok {
			if protocol, err := c.handshake(secured); err != nil || protocol != "" {
				s.forget(c)
				if err != nil || protocol != "h2" || secured.SetDeadline(time.Time{}) != nil || !s.others.hand(secured) {
					conn.Close()
				}
				return
			}
		}
		other := s.guard(c)
		s.forget(c)
		if len(c.buffer) > quickBufferBytes {
			s.shrink(len(c.buffer))
		}
		if !other || conn.SetDeadline(time.Time{}) != nil || !s.others.hand(&rewound{Conn: &patient{conn, s.writeTimeout}, read: c.buffer[c.start:c.end]}) {
			conn.Close()
		}
	}()
}

func (s *quickServer) forget(c *quickConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// guard serves the connection. A panic of the handler ends the connection and nothing else, as with net/http.
func (s *quickServer) guard(c *quickConn) (other bool) {
	defer func() {
		if reason := recover(); reason != nil {
			other = false
			if reason != http.ErrAbortHandler {
				s.errorLog.Printf("http: panic serving %v: %v\n%s", c.RemoteAddr(), reason, debug.Stack())
			}
		}
	}()
	return c.serve()
}

// grow takes memory for a large buffer, and reports whether there was any.
func (s *quickServer) grow(bytes int) bool {
	if s.grown.Add(int64(bytes)) > maxQuickGrownBytes {
		s.grown.Add(int64(-bytes))
		return false
	}
	return true
}

func (s *quickServer) shrink(bytes int) { s.grown.Add(int64(-bytes)) }

// shutdown ends the connections that wait for a request, and waits for the answers to the others, or for the end of ctx.
func (s *quickServer) shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.draining.Store(true)
	for c := range s.conns {
		if c.resting.Load() {
			c.SetReadDeadline(time.Unix(1, 0))
		}
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends all connections.
func (s *quickServer) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining.Store(true)
	for c := range s.conns {
		c.Close()
	}
}

// handedOver is the listener that gives net/http its connections.
type handedOver struct {
	conns   chan net.Conn
	closed  chan struct{}
	closing sync.Once
	addr    net.Addr
}

// hand gives conn to net/http. It reports false when that takes no more.
func (h *handedOver) hand(conn net.Conn) bool {
	select {
	case h.conns <- conn:
		return true
	case <-h.closed:
		return false
	}
}

func (h *handedOver) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		return conn, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handedOver) Close() error {
	h.closing.Do(func() { close(h.closed) })
	return nil
}

func (h *handedOver) Addr() net.Addr { return h.addr }

// accept gives quick every connection of listener until that is closed. As with net/http, a want of file descriptors or
// the like is waited out.
func accept(listener net.Listener, quick *quickServer) error {
	var wait time.Duration
	for {
		conn, err := listener.Accept()
		if err == nil {
			wait = 0
			quick.serve(conn)
			continue
		}
		var temporary interface{ Temporary() bool }
		if !errors.As(err, &temporary) || !temporary.Temporary() {
			return err
		}
		wait = min(max(2*wait, 5*time.Millisecond), time.Second)
		quick.errorLog.Printf("http: accept: %v; trying again in %v", err, wait)
		time.Sleep(wait)
	}
}
