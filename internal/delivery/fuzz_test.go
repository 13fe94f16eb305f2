package delivery

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"
)

// Whatever an egress proxy answers, its tunnel is used after a clean 2xx only.
func FuzzProxyAnswer(f *testing.F) {
	for _, seed := range []string{"HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 407 No\r\nContent-Length: 1\r\n\r\nx", "HTTP/1.1 200 OK\r\n\r\nearly", "SSH-2.0", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		conn := &scripted{in: bytes.NewReader(answer)}
		err := connect(conn, netip.MustParseAddrPort("93.184.216.34:443"), nil)
		if err == nil && !bytes.HasPrefix(answer, []byte("HTTP/")) {
			t.Fatalf("%q opened a tunnel", answer)
		}
	})
}

// Whatever a destination answers, reading it ends and is bounded.
func FuzzDestinationAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\nRetry-After: 9\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "HTTP/1.1 301 Moved\r\nLocation: http://x/\r\n\r\n", "garbage",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		request, _ := http.NewRequest(http.MethodPost, "http://example.com/", bytes.NewReader([]byte("{}")))
		limit := &io.LimitedReader{R: &scripted{in: bytes.NewReader(answer)}}
		conn := &plainConn{Conn: &scripted{}, limit: limit, in: bufio.NewReader(limit), out: bufio.NewWriter(io.Discard)}
		response, err := conn.exchange(request)
		if err != nil {
			return
		}
		defer response.Body.Close()
		read, _ := readResponse(response.Body, nil)
		if read.Bytes > maxResponseBytes || len(read.Excerpt) > maxExcerptBytes {
			t.Fatalf("%d bytes were kept, %d of them shown", read.Bytes, len(read.Excerpt))
		}
		diagnoseStatus(response)
		if wait := retryAfter(response.StatusCode, response.Header, time.Now()); wait < 0 || wait > maxRetryAfter {
			t.Fatalf("told to wait %v", wait)
		}
	})
}

// Retry-After is within its bounds, whatever it says.
func FuzzRetryAfter(f *testing.F) {
	for _, seed := range []string{"120", "-1", "99999999999999999999", "Fri, 31 Dec 1999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "1e9", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		if wait := retryAfter(http.StatusTooManyRequests, http.Header{"Retry-After": {value}}, time.Now()); wait < 0 || wait > maxRetryAfter {
			t.Fatalf("%q: %v", value, wait)
		}
	})
}

// scripted is a connection whose peer has said all it says.
type scripted struct {
	net.Conn
	in io.Reader
}

func (c *scripted) Read(p []byte) (int, error)  { return c.in.Read(p) }
func (c *scripted) Write(p []byte) (int, error) { return len(p), nil }
func (c *scripted) SetDeadline(time.Time) error { return nil }
func (c *scripted) Close() error                { return nil }
