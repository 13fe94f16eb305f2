package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	sinkReply      = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
	sinkReplyClose = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	sinkMalformed  = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	sinkHeadLarge  = "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
	sinkBodyLarge  = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

	// acceptPause is the wait after a failed accept, such as for want of descriptors.
	acceptPause = 10 * time.Millisecond
)

// Sink is the destination of a measured run: an HTTP/1.1 server that answers 200 to
// everything, and enters each delivery of the run in progress into that run's ledger.
// It knows a delivery by the mark in its body, so headers may change on the way.
type Sink struct {
	listener net.Listener
	reply    string
	delay    time.Duration // between a delivery and its answer
	ledger   atomic.Pointer[ledger]
	foreign  atomic.Int64
	waiting  atomic.Int64 // deliveries whose delay is not over; not counted without one
	peak     atomic.Int64 // the most of them at once

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

// NewSink listens on addr (host:port, port 0 for any). Requests are answered once Run runs.
func NewSink(addr string) (*Sink, error) { return NewSlowSink(addr, 0) }

// NewSlowSink is a sink that takes delay for each delivery before it answers. With one that is longer
// than the server waits it is a destination that hangs.
func NewSlowSink(addr string, delay time.Duration) (*Sink, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for deliveries: %w", err)
	}
	return &Sink{listener: l, reply: sinkReply, delay: delay, conns: make(map[net.Conn]struct{})}, nil
}

// URL is the address that a destination is given.
func (s *Sink) URL() string {
	return "http://" + s.listener.Addr().String() + "/deliveries"
}

// Run answers deliveries until ctx ends, then closes every connection.
func (s *Sink) Run(ctx context.Context) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	stop := context.AfterFunc(ctx, s.closeAll)
	defer stop()
	for {
		conn, err := s.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			s.closeAll()
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			s.closeAll()
			return fmt.Errorf("accept a delivery: %w", err)
		}
		if err != nil {
			time.Sleep(acceptPause)
			continue
		}
		s.mu.Lock()
		s.conns[conn] = struct{}{}
		s.mu.Unlock()
		serving.Go(func() { s.serve(ctx, conn) })
	}
}

// closeAll ends the listener and every open connection; serve's reads then fail.
func (s *Sink) closeAll() {
	s.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		conn.Close()
	}
}

// serve answers one connection's requests in turn until it ends or breaks the protocol.
func (s *Sink) serve(ctx context.Context, conn net.Conn) {
	defer func() {
		conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	in := newStream(conn)
	reply, last := []byte(s.reply), []byte(sinkReplyClose)
	peek := make([]byte, markLength)
	for ctx.Err() == nil {
		final, n, err := readRequest(in, peek)
		if err != nil {
			if answer := refusal(err); answer != "" {
				s.foreign.Add(1)
				conn.Write([]byte(answer)) // the connection closes either way
			}
			return
		}
		s.count(peek[:n])
		if s.delay > 0 && !s.wait(ctx) {
			return
		}
		if final {
			conn.Write(last) // the connection closes either way
			return
		}
		if _, err := conn.Write(reply); err != nil {
			return
		}
	}
}

// wait lets the delay pass, and reports false when ctx ends before.
func (s *Sink) wait(ctx context.Context) bool {
	waiting := s.waiting.Add(1)
	defer s.waiting.Add(-1)
	for peak := s.peak.Load(); waiting > peak && !s.peak.CompareAndSwap(peak, waiting); peak = s.peak.Load() {
	}
	timer := time.NewTimer(s.delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// readRequest consumes one request, and says whether it is the connection's final one and how
// many of the body's first bytes are in peek.
func readRequest(in *stream, peek []byte) (final bool, n int, err error) {
	start, lines, err := in.head()
	if err != nil {
		return false, 0, err
	}
	const version = " HTTP/1.1"
	if len(start) < len("A /")+len(version) || string(start[len(start)-len(version):len(start)-1]) != version[:len(version)-1] {
		return false, 0, fmt.Errorf("%w: request line", errMalformed)
	}
	old := start[len(start)-1] != '1'
	f, err := parseFields(lines)
	if err != nil {
		return false, 0, err
	}
	n, err = in.body(f, false, peek)
	return f.close || old, n, err
}

// refusal is the answer to a request that could not be read, if it gets one.
func refusal(err error) string {
	switch {
	case errors.Is(err, errMalformed):
		return sinkMalformed
	case errors.Is(err, errHeadTooLarge):
		return sinkHeadLarge
	case errors.Is(err, errBodyTooLarge):
		return sinkBodyLarge
	default:
		return ""
	}
}

// count enters a delivery into the ledger, or counts it as foreign: of another run, or no
// webhook of ours at all.
func (s *Sink) count(body []byte) {
	l := s.ledger.Load()
	run, id, ok := readMark(body)
	if !ok || l == nil || run != l.run || !l.received(id) {
		s.foreign.Add(1)
	}
}
