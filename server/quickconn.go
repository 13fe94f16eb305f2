package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// A connection's buffer: a small webhook with its head. It grows for a larger one, up to the bound, and shrinks again.
	quickBufferBytes    = 4 << 10
	maxQuickBufferBytes = 64 << 10
	// quickPatience is for how long the rest of a request is waited for before net/http has it, with its own deadlines.
	quickPatience = time.Second
	// quickWriteTimeout is for how long a client may leave its answer unread.
	quickWriteTimeout = 15 * time.Second
)

// quickConn serves one connection, request after request.
type quickConn struct {
	net.Conn
	server   *quickServer
	template *http.Request // with what all requests of the connection share
	buffer   []byte
	start    int // buffer[start:end] was read and not used yet
	end      int
	out      []byte
	served   bool        // a first request
	resting  atomic.Bool // between two requests
}

// handshake makes the connection a secure one. It returns the protocol that was agreed upon, "" for HTTP/1.1. A client has as
// long for it as for a head; the end of the server ends it.
func (c *quickConn) handshake(conn *tls.Conn) (protocol string, err error) {
	conn.SetDeadline(time.Now().Add(readHeaderTimeout))
	c.resting.Store(true)
	defer c.resting.Store(false)
	if c.server.draining.Load() {
		return "", net.ErrClosed
	}
	if err := conn.HandshakeContext(context.Background()); err != nil {
		return "", err
	}
	if protocol = conn.ConnectionState().NegotiatedProtocol; protocol == "http/1.1" {
		protocol = ""
	}
	return protocol, nil
}

// serve answers requests of the plain form until the connection ends or another form comes, for which it returns true:
// what was read of it is in the buffer.
func (c *quickConn) serve() (other bool) {
	for {
		head, other := c.readHead()
		if head == 0 {
			return other
		}
		parsed, plain := parsePlainHead(string(c.buffer[c.start : c.start+head]))
		if !plain {
			return true
		}
		size := head + len(lineEnd) + parsed.contentLength
		if !c.fill(size) {
			return true
		}
		body := c.buffer[c.start+head+len(lineEnd) : c.start+size]
		c.start += size
		if !c.answer(parsed, body) || c.server.draining.Load() {
			return false
		}
		c.served = true
		c.shrink()
	}
}

// readHead waits for the next request, and returns the length of its head up to the empty line. 0: the connection has
// ended or, with other, another form of request has begun.
func (c *quickConn) readHead() (length int, other bool) {
	patience := readHeaderTimeout // of a new connection
	if c.served {
		patience = idleTimeout
	}
	began := c.end > c.start
	if began {
		patience = quickPatience
	}
	c.SetReadDeadline(time.Now().Add(patience))
	for {
		unused := c.buffer[c.start:c.end]
		if i := bytes.Index(unused, []byte(lineEnd+lineEnd)); i >= 0 {
			return i + len(lineEnd), false
		}
		if n := min(len(unused), len(plainStart)); string(unused[:n]) != plainStart[:n] {
			return 0, true
		}
		if len(unused) == len(c.buffer) {
			return 0, true
		}
		if len(unused) > 0 && !began {
			began = true
			c.SetReadDeadline(time.Now().Add(quickPatience))
		}
		// Between two requests the server may end the connection; see quickServer.Shutdown.
		c.resting.Store(!began)
		if !began && c.server.draining.Load() {
			return 0, false
		}
		err := c.read()
		c.resting.Store(false)
		if err != nil {
			return 0, began
		}
	}
}

// fill reads until size bytes are there. It reports false when they do not come soon, or are too many.
func (c *quickConn) fill(size int) bool {
	if c.end-c.start >= size {
		return true
	}
	if size > maxQuickBufferBytes {
		return false
	}
	if size > len(c.buffer) {
		if !c.server.grow(size) {
			return false
		}
		larger := make([]byte, size)
		c.end = copy(larger, c.buffer[c.start:c.end])
		c.buffer, c.start = larger, 0
	}
	c.SetReadDeadline(time.Now().Add(quickPatience))
	for c.end-c.start < size {
		if c.read() != nil {
			return false
		}
	}
	return true
}

// read reads what has come, after the bytes that are not used yet.
func (c *quickConn) read() error {
	if c.start == c.end {
		c.start, c.end = 0, 0
	}
	if c.start > 0 && c.end == len(c.buffer) {
		c.end = copy(c.buffer, c.buffer[c.start:c.end])
		c.start = 0
	}
	n, err := c.Read(c.buffer[c.end:])
	c.end += n
	if n > 0 {
		return nil
	}
	return err
}

// shrink gives a large buffer back.
func (c *quickConn) shrink() {
	if len(c.buffer) > quickBufferBytes && c.end-c.start <= quickBufferBytes {
		c.server.shrink(len(c.buffer))
		smaller := make([]byte, quickBufferBytes)
		c.end = copy(smaller, c.buffer[c.start:c.end])
		c.buffer, c.start = smaller, 0
	}
}

// answer has the handler answer a request, and reports whether the connection goes on.
func (c *quickConn) answer(head plainHead, body []byte) bool {
	request := *c.template
	request.URL = &url.URL{Path: head.path}
	request.RequestURI = head.path
	request.Host = head.host
	request.Header = head.header
	request.ContentLength = int64(head.contentLength)
	request.Body = http.NoBody
	if len(body) > 0 {
		request.Body = io.NopCloser(bytes.NewReader(body))
	}
	w := quickWriter{header: make(http.Header, 4), body: c.out[:0], status: http.StatusOK}
	c.server.handler.ServeHTTP(&w, &request)
	c.out = w.body
	c.SetWriteDeadline(time.Now().Add(c.server.writeTimeout))
	closes := w.header.Get("Connection") == "close" || c.server.draining.Load()
	message := w.message(closes)
	_, err := c.Write(message)
	return err == nil && !closes
}

// quickWriter collects the answer to one request.
type quickWriter struct {
	header http.Header
	status int
	began  bool
	body   []byte
}

func (w *quickWriter) Header() http.Header { return w.header }

func (w *quickWriter) WriteHeader(status int) {
	if !w.began {
		w.began, w.status = true, status
	}
}

func (w *quickWriter) Write(data []byte) (int, error) {
	w.began = true
	w.body = append(w.body, data...)
	return len(data), nil
}

// SetReadDeadline is for http.ResponseController: the body is there already.
func (w *quickWriter) SetReadDeadline(time.Time) error { return nil }

// message spells the whole answer.
func (w *quickWriter) message(closes bool) []byte {
	m := make([]byte, 0, 256+len(w.body))
	m = strconv.AppendInt(append(m, "HTTP/1.1 "...), int64(w.status), 10)
	m = append(append(append(m, ' '), http.StatusText(w.status)...), "\r\nDate: "...)
	m = time.Now().UTC().AppendFormat(m, http.TimeFormat)
	if w.status != http.StatusNoContent { // RFC 9110 section 8.6
		m = strconv.AppendInt(append(m, "\r\nContent-Length: "...), int64(len(w.body)), 10)
	}
	m = append(m, lineEnd...)
	if closes {
		w.header.Set("Connection", "close")
	}
	for name, values := range w.header {
		for _, value := range values {
			m = append(append(append(append(m, name...), ": "...), value...), lineEnd...)
		}
	}
	return append(append(m, lineEnd...), w.body...)
}

// patient is a connection whose client may take so long for each write: who reads nothing is not waited for, and a
// stream that is read may last for ever.
type patient struct {
	net.Conn
	timeout time.Duration
}

func (c *patient) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// rewound is a connection whose first bytes were read already.
type rewound struct {
	net.Conn
	read []byte
}

func (c *rewound) Read(p []byte) (int, error) {
	if len(c.read) > 0 {
		n := copy(p, c.read)
		if c.read = c.read[n:]; len(c.read) == 0 {
			c.read = nil
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

func newTemplate(conn net.Conn) *http.Request {
	return (&http.Request{
		Method: http.MethodPost, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: conn.RemoteAddr().String(),
	}).WithContext(context.Background())
}
