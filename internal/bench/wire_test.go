package bench

import (
	"bytes"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// A message reads the same whether it comes whole or byte by byte, and leaves the next
// one untouched.
func TestResponsesAreReadHoweverTheyAreCut(t *testing.T) {
	const next = "HTTP/1.1 204 No Content\r\nX: y\r\n\r\n"
	for name, c := range map[string]struct {
		first      string
		status     int
		retryAfter time.Duration
	}{
		"length":      {"HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\nhello", 202, 0},
		"retry after": {"HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\ncontent-length:0\r\n\r\n", 503, 7 * time.Second},
		"a date":      {"HTTP/1.1 429 Slow\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\nContent-Length: 0\r\n\r\n", 429, 0},
		"chunked":     {"HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;e\r\nde\r\n0\r\nA: b\r\n\r\n", 202, 0},
		"interim":     {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 202 OK\r\nContent-Length: 1\r\n\r\nx", 202, 0},
		"large head":  {"HTTP/1.1 202 OK\r\nX: " + strings.Repeat("x", 3*firstBufferBytes) + "\r\nContent-Length: 1\r\n\r\nx", 202, 0},
		"large body":  {"HTTP/1.1 202 OK\r\nContent-Length: 30000\r\n\r\n" + strings.Repeat("x", 30000), 202, 0},
	} {
		t.Run(name, func(t *testing.T) {
			for _, in := range []*stream{
				newStream(strings.NewReader(c.first + next)),
				newStream(iotest.OneByteReader(strings.NewReader(c.first + next))),
			} {
				status, f, err := readResponse(in)
				if err != nil || status != c.status || f.retryAfter != c.retryAfter || f.close {
					t.Fatalf("got %d, %+v, %v; want %d, retry after %s", status, f, err, c.status, c.retryAfter)
				}
				if status, _, err = readResponse(in); err != nil || status != 204 {
					t.Fatalf("the next one: got %d, %v; want 204", status, err)
				}
			}
		})
	}
}

func TestConnectionEndsWhereTheServerSaysSo(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 202 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 202 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.0 202 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 202 OK\r\n\r\nuntil the end",
	} {
		if status, f, err := readResponse(newStream(strings.NewReader(answer))); err != nil || status != 202 || !f.close {
			t.Errorf("%q: got %d, %+v, %v; want 202 and close", answer, status, f, err)
		}
	}
}

// Whatever comes, reading ends, and holds no more than the bounds allow.
func FuzzStream(f *testing.F) {
	f.Add([]byte("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcPOST / HTTP/1.1\r\n\r\n"))
	f.Add([]byte("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"))
	f.Fuzz(func(t *testing.T, input []byte) {
		peek := make([]byte, markLength)
		in := newStream(bytes.NewReader(input))
		for {
			_, n, err := readRequest(in, peek)
			if n > len(peek) || len(in.buf) > 4*maxHeadBytes {
				t.Fatalf("peeked %d bytes, buffer of %d", n, len(in.buf))
			}
			if err != nil {
				break
			}
		}
		in = newStream(bytes.NewReader(input))
		for {
			if _, _, err := readResponse(in); err != nil {
				break
			}
		}
	})
}
