package chaos

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// statusClientClosed is what the server says to a client that it believes gone.
const statusClientClosed = 499

// bodyPatience is how long the server waits for a slow body (15 s), and some.
const bodyPatience = 25 * time.Second

// Requests that no HTTP client would send, over plain connections. Each gets its status or no answer at all, and the
// server goes on taking webhooks: while hundreds of slow connections are open, and after all of them.
func TestHostileRequestsHarmNobody(t *testing.T) {
	t.Parallel() // it mostly waits
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	node := cluster.Start(t, "a")
	sink := NewSink(t)
	route := node.API().CreateRoute(t, sink.URL)
	address := strings.TrimPrefix(node.URL, "http://")
	target := "/ingest/" + route.EndpointID
	post := "POST " + target + " HTTP/1.1\r\nHost: kapsel\r\n"
	signed := func(body string) string {
		return "Content-Type: application/json\r\nX-Hub-Signature-256: " + GitHubSignature(route.Secret, []byte(body)) + "\r\n"
	}

	// A webhook must pass before it means anything that others do not.
	checkAlive(ctx, t, node, route)
	var slow []net.Conn
	for range scaled(200) {
		slow = append(slow, dial(t, address, post+"Content-Length: 1000\r\n\r\n{"))
	}
	var silent []net.Conn
	for range scaled(100) {
		silent = append(silent, dial(t, address, ""), dial(t, address, post+"X-Slow: "))
	}

	for name, c := range map[string]struct {
		request string
		// status wanted; 0: a status from 400 up, or the connection closed.
		status int
	}{
		"no signature":                 {post + "Content-Length: 2\r\n\r\n{}", 401},
		"wrong signature":              {post + signed("[]") + "Content-Length: 2\r\n\r\n{}", 401},
		"unknown endpoint":             {strings.Replace(post, target, "/ingest/ep_01jd0000000000000000000000", 1) + "Content-Length: 2\r\n\r\n{}", 404},
		"no endpoint":                  {strings.Replace(post, target, "/ingest/..%2f..%2fetc", 1) + "Content-Length: 2\r\n\r\n{}", 404},
		"GET":                          {"GET " + target + " HTTP/1.1\r\nHost: kapsel\r\n\r\n", 405},
		"over the bound":               {post + "Content-Length: 1048577\r\n\r\n{", 413},
		"huge Content-Length":          {post + "Content-Length: 9223372036854775807\r\n\r\n{", 413},
		"Content-Length beyond int64":  {post + "Content-Length: 99999999999999999999\r\n\r\n{", 400},
		"negative Content-Length":      {post + "Content-Length: -1\r\n\r\n{", 400},
		"two lengths":                  {post + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400},
		"unknown transfer coding":      {post + "Transfer-Encoding: gzip\r\n\r\n{}", 501},
		"endless chunks":               {post + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("8000\r\n"+strings.Repeat("x", 0x8000)+"\r\n", 40), 413},
		"chunk that is none":           {post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
		"header bomb, one line":        {post + "X-Bomb: " + strings.Repeat("b", 1<<20) + "\r\n\r\n", 431},
		"header bomb, many lines":      {post + strings.Repeat("X-Bomb: b\r\n", 100_000) + "\r\n", 431},
		"more headers than are kept":   {post + strings.Repeat("X-Many: b\r\n", 300) + "Content-Length: 2\r\n\r\n{}", 431},
		"invalid header name":          {post + "Bad Name: x\r\nContent-Length: 2\r\n\r\n{}", 400},
		"NUL in a header":              {post + "X-Nul: \x00\r\nContent-Length: 2\r\n\r\n{}", 400},
		"no HTTP":                      {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("\x80", 500), 0},
		"pipelined garbage":            {post + signed("{}") + "Content-Length: 2\r\n\r\n{}" + strings.Repeat("garbage ", 1000) + "\r\n\r\n", 202},
		"HTTP/2 preface and then none": {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + strings.Repeat("\xff", 4096), 0},
	} {
		conn := dial(t, address, "")
		// The server may answer and close before it has read all: the write then fails, which is fine.
		go io.WriteString(conn, c.request)
		got, err := status(conn, 10*time.Second)
		switch {
		case c.status == 0 && (err != nil || got >= 400):
		case err != nil:
			t.Errorf("%s: %v: want status %d", name, err, c.status)
		case got != c.status:
			t.Errorf("%s: status %d: want %d", name, got, c.status)
		}
	}

	broken := `{"broken": ` + "\xff\xfe"
	conn := dial(t, address, post+signed(broken)+fmt.Sprintf("X-GitHub-Delivery: broken\r\nContent-Length: %d\r\n\r\n%s", len(broken), broken))
	if got, err := status(conn, 10*time.Second); err != nil || got != http.StatusAccepted {
		t.Errorf("signed bytes that are not JSON: status %d, error %v: want 202, they are kept and dead-lettered", got, err)
	}
	half := dial(t, address, post+signed("{}")+"Content-Length: 2\r\n\r\n{}")
	if err := half.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	// Go's server cannot tell it from one that is gone, so the answer depends on which is faster, the commit or the notice.
	if got, err := status(half, 10*time.Second); err != nil || got != http.StatusAccepted && got != statusClientClosed {
		t.Errorf("a half-closed connection: status %d, error %v: want 202, or 499", got, err)
	}
	for range scaled(200) { // gone in the middle of a body
		dial(t, address, post+"Content-Length: 1000\r\n\r\n{").Close()
	}

	checkAlive(ctx, t, node, route)
	for i, conn := range slow {
		if got, err := status(conn, bodyPatience); err != nil || got != http.StatusRequestTimeout {
			t.Fatalf("slow body %d: status %d, error %v: want 408", i, got, err)
		}
	}
	for i, conn := range silent {
		conn.SetReadDeadline(time.Now().Add(bodyPatience))
		if rest, err := io.ReadAll(conn); err != nil {
			t.Fatalf("connection %d without a request is still open: %q, %v", i, rest, err)
		}
	}
	checkAlive(ctx, t, node, route)
	if node.Ended() {
		t.Fatal("the server has ended")
	}
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	ReadLedger(t, cluster.DatabaseURL()).CheckDense(t)
}

// dial opens a connection that ends with the test, and writes to it.
func dial(t *testing.T, address, request string) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatalf("write: %v", err)
	}
	return conn
}

// status reads the status of one answer.
func status(conn net.Conn, patience time.Duration) (int, error) {
	conn.SetReadDeadline(time.Now().Add(patience))
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	return answer.StatusCode, answer.Body.Close()
}

// checkAlive posts a good webhook, which must be taken without delay.
func checkAlive(ctx context.Context, t *testing.T, node *Node, route Route) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	deliveryID := fmt.Sprintf("alive-%d", time.Now().UnixNano())
	code, answer, err := Post(ctx, http.DefaultClient, node.IngestURL(route), route.Secret, deliveryID, "ping", []byte(`{"alive":true}`))
	if err != nil || code != http.StatusAccepted {
		t.Fatalf("a good webhook: status %d, error %v: %s", code, err, answer)
	}
}
