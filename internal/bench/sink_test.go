package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// raw writes bytes to the sink and returns all that it answers until it closes.
func raw(t *testing.T, s *Sink, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	go func() {
		// The sink may answer and close before it has read everything.
		io.WriteString(conn, request)
		conn.(*net.TCPConn).CloseWrite()
	}()
	answer, _ := io.ReadAll(conn) // a reset after the answer is as good as an end
	return string(answer)
}

func TestHostileInputDoesNotStopTheSink(t *testing.T) {
	f := startForwarder(t)
	for name, c := range map[string]struct{ request, status string }{
		"garbage":                {"\x16\x03\x01\x02\x00\r\n\r\n", "400"},
		"no version":             {"GET /\r\n\r\n", "400"},
		"nameless header":        {"POST / HTTP/1.1\r\n: x\r\n\r\n", "400"},
		"negative length":        {"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", "400"},
		"two lengths":            {"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"},
		"overflowing length":     {"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", "400"},
		"body too large":         {"POST / HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n", "413"},
		"chunk too large":        {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\n", "413"},
		"chunk size not hex":     {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "400"},
		"chunk without its end":  {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", "400"},
		"unknown coding":         {"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "400"},
		"head too large":         {"POST / HTTP/1.1\r\nX: " + strings.Repeat("x", maxHeadBytes) + "\r\n\r\n", "431"},
		"head without end":       {"POST / HTTP/1.1\r\nX: y", ""},
		"body cut short":         {"POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc", ""},
		"nothing":                {"", ""},
		"body of another origin": {"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", "200"},
	} {
		t.Run(name, func(t *testing.T) {
			got := raw(t, f.sink, c.request)
			if c.status == "" && got != "" || c.status != "" && !strings.HasPrefix(got, "HTTP/1.1 "+c.status+" ") {
				t.Errorf("answered %.60q, want status %q", got, c.status)
			}
		})
	}
	if r := f.run(Config{Conns: 1, Duration: 50 * time.Millisecond}); r.Accepted == 0 || r.Err() != nil {
		t.Errorf("after hostile input: accepted %d, %v", r.Accepted, r.Err())
	}
}

func TestSinkCountsOnlyThisRunsWebhooks(t *testing.T) {
	f := startForwarder(t)
	l := newLedger()
	f.sink.ledger.Store(l)
	known, _ := l.issue()
	mark := func(run, id uint64) string { return fmt.Sprintf("%s%016x%s%016x\"}", markRun, run, markSeq, id) }
	for body, want := range map[string][2]int64{
		mark(l.run, known):        {1, 0},
		mark(l.run, known+1):      {0, 1}, // never issued
		mark(l.run, 1<<63):        {0, 1},
		mark(l.run+1, known):      {0, 1}, // another run
		mark(l.run, known)[:30]:   {0, 1},
		`{"hello":"from a test"}`: {0, 1},
	} {
		receipts, foreign := l.receipts.Load(), f.sink.foreign.Load()
		f.sink.count([]byte(body))
		if got := [2]int64{l.receipts.Load() - receipts, f.sink.foreign.Load() - foreign}; got != want {
			t.Errorf("%s: counted %v, want %v", body, got, want)
		}
	}
}

func TestSinkReadsChunkedAndPipelinedDeliveries(t *testing.T) {
	f := startForwarder(t)
	l := newLedger()
	f.sink.ledger.Store(l)
	var request bytes.Buffer
	for range 3 {
		id, _ := l.issue()
		body := newPayload(l.run, 600)
		putHex(body[seqOffset:markLength], id)
		// Cut in the middle of the mark.
		fmt.Fprintf(&request, "POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n14;x=y\r\n%s\r\n%x\r\n%s\r\n0\r\nTrailer: z\r\n\r\n", body[:0x14], len(body)-0x14, body[0x14:])
	}
	answers := bufio.NewReader(strings.NewReader(raw(t, f.sink, request.String())))
	for n := range 3 {
		answer, err := http.ReadResponse(answers, nil)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("answer %d: %v, %v", n, answer, err)
		}
	}
	if got := l.undelivered(0); l.receipts.Load() != 3 || l.repeats.Load() != 0 || got != 3 {
		t.Errorf("receipts %d, repeats %d: want 3, 0", l.receipts.Load(), l.repeats.Load())
	}
}
