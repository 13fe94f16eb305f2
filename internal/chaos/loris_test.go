package chaos

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// crawlingSink is a destination that reads what comes and then answers one byte at a time, without end. It returns its
// URL.
func crawlingSink(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go crawl(conn)
		}
	}()
	return "http://" + listener.Addr().String() + "/sink"
}

func crawl(conn net.Conn) {
	defer conn.Close()
	request, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	io.Copy(io.Discard, request.Body)
	for _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nX-Slow: "); err == nil; _, err = io.WriteString(conn, "x") {
		time.Sleep(100 * time.Millisecond)
	}
}

// Sources that send a byte and then nothing, and a destination that answers a byte at a time: others are not held up, an
// attempt takes its timeout and no longer, and nothing that waits is lost.
func TestSlowSourcesAndSinksHoldUpNobody(t *testing.T) {
	t.Parallel() // it mostly waits
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	node := cluster.Start(t, "a")
	sink := NewSink(t)
	slow := node.API().CreateRouteWith(t, crawlingSink(t), object{"timeout": "1s", "retryPolicy": object{"base": "0.1s", "maxAttempts": 2}})
	healthy := node.API().CreateRoute(t, sink.URL)
	for range scaled(300) {
		dial(t, strings.TrimPrefix(node.URL, "http://"), "POST /ingest/"+healthy.EndpointID+" HTTP/1.1\r\nHost: kapsel\r\nContent-Length: 1000\r\n\r\n{")
	}

	stuck := Load{IngestURLs: []string{node.IngestURL(slow)}, Secret: slow.Secret, Count: scaled(400), PerSecond: 400, Conns: 8}.Start(ctx, r)
	sources := Load{IngestURLs: []string{node.IngestURL(healthy)}, Secret: healthy.Secret, Count: scaled(1000), PerSecond: scaled(300), Conns: 8}.Start(ctx, r)
	posted := sources.Wait(t)
	late := sink.AwaitAll(t, posted, 2*time.Second)
	held := stuck.Wait(t)

	// The breaker opens after a few attempts, and holds the others back: they wait in the queue, which fsck looks at.
	timeouts := 0
	for until := time.Now().Add(settlePatience); timeouts < 5 && time.Now().Before(until); time.Sleep(200 * time.Millisecond) {
		timeouts = 0
		ledger := ReadAttempts(t, cluster.DatabaseURL())
		for _, p := range held {
			for _, a := range ledger.Attempts[p.EventID] {
				if a.Failure.String() != "FAILURE_TIMEOUT" {
					t.Errorf("an attempt at the slow destination ended with %v", a.Failure)
				}
				timeouts++
			}
		}
	}
	if timeouts < 5 {
		t.Errorf("%d webhooks to the slow destination: only %d attempts timed out", len(held), timeouts)
	}
	dead, ledger := deadEvents(t, node.API()), ReadAttempts(t, cluster.DatabaseURL())
	for _, p := range held {
		if n := len(ledger.Attempts[p.EventID]); n > 2 || dead[p.EventID] && n != 2 {
			t.Errorf("event %s has %d attempts, and is dead: %v", p.EventID, n, dead[p.EventID])
		}
	}
	arrivals := sink.Arrivals()
	for _, p := range posted {
		if n := arrivals[p.EventID].Count; n != 1 {
			t.Errorf("event %s arrived %d times at the healthy destination", p.EventID, n)
		}
	}
	CheckFsck(t, cluster)
	t.Logf("%d webhooks passed by %d slow sources and %d stuck deliveries: the last arrived %v after its ack, longest gap between acks %v",
		len(posted), scaled(300), len(held), late.Round(time.Millisecond), sources.LongestGap().Round(time.Millisecond))
}
