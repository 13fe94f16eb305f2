package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/certtest"
)

// secureRig is a server with TLS whose certificate can be swapped.
type secureRig struct {
	address string
	pair    atomic.Pointer[tls.Certificate]
	ca      *certtest.Authority
	server  *HTTPServer
}

func newSecureRig(t *testing.T, handler http.Handler) *secureRig {
	r := &secureRig{ca: certtest.New(t)}
	pair := r.ca.Issue(t, "127.0.0.1").TLS
	r.pair.Store(&pair)
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return r.pair.Load(), nil },
	}
	r.server = NewHTTPServer(handler, config, log.New(io.Discard, "", 0))
	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	r.address = listener.Addr().String()
	done := make(chan struct{})
	go func() { r.server.Serve(listener); close(done) }()
	t.Cleanup(func() { r.server.Close(); <-done })
	return r
}

func (r *secureRig) client(t *testing.T, http2 bool) *http.Client {
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.ca.Pool}, ForceAttemptHTTP2: http2}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s", r.Proto, r.URL.Path, body)
}

func TestTLSServesBothProtocolsAndThePlainWay(t *testing.T) {
	r := newSecureRig(t, http.HandlerFunc(echo))
	for _, http2 := range []bool{false, true} {
		client := r.client(t, http2)
		for _, path := range []string{"/ingest/ep_1", "/other", "/ingest/ep_2"} {
			body := strings.Repeat("x", 9000) // larger than a buffer, and than a TLS record's first bytes
			response, err := client.Post("https://"+r.address+path, "text/plain", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			got := must(io.ReadAll(response.Body))(t)
			response.Body.Close()
			proto := "HTTP/1.1"
			if http2 {
				proto = "HTTP/2.0"
			}
			if want := proto + " " + path + " " + body; string(got) != want {
				t.Errorf("%s %s: got %.60q, want %.60q", proto, path, got, want)
			}
		}
	}
}

// The bytes of a head that come in pieces, longer apart than the plain way waits, are not lost when net/http takes over.
func TestSlowWebhookOverTLSIsHandedOverWhole(t *testing.T) {
	r := newSecureRig(t, http.HandlerFunc(echo))
	conn := must(tls.Dial("tcp", r.address, &tls.Config{RootCAs: r.ca.Pool}))(t)
	defer conn.Close()
	io.WriteString(conn, "POST /ingest/ep_1 HTTP/1.1\r\nHost: a\r\nContent-")
	time.Sleep(quickPatience + 200*time.Millisecond)
	io.WriteString(conn, "Length: 5\r\n\r\nhello")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if got := must(io.ReadAll(response.Body))(t); string(got) != "HTTP/1.1 /ingest/ep_1 hello" {
		t.Errorf("got %q", got)
	}
}

func TestNewCertificateReachesNewConnectionsAndDropsNoOldOne(t *testing.T) {
	r := newSecureRig(t, http.HandlerFunc(echo))
	old := r.client(t, false)
	send := func(client *http.Client) []byte {
		response, err := client.Post("https://"+r.address+"/ingest/ep_1", "text/plain", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, response.Body)
		response.Body.Close()
		return response.TLS.PeerCertificates[0].Raw
	}
	first := send(old)
	next := r.ca.Issue(t, "127.0.0.1").TLS
	r.pair.Store(&next)
	if string(send(old)) != string(first) {
		t.Error("the old connection was dropped")
	}
	if string(send(r.client(t, false))) != string(next.Certificate[0]) {
		t.Error("a new connection got the old certificate")
	}
}

func TestTLSRefusesWhatIsNotTLSAndOldVersions(t *testing.T) {
	r := newSecureRig(t, http.HandlerFunc(echo))
	if conn, err := tls.Dial("tcp", r.address, &tls.Config{RootCAs: r.ca.Pool, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		conn.Close()
		t.Error("TLS 1.1 was spoken")
	}
	if response, err := http.Get("http://" + r.address + "/livez"); err == nil {
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			t.Error("a request in the clear was answered")
		}
	}
}

func TestShutdownEndsConnectionsInTheirHandshake(t *testing.T) {
	r := newSecureRig(t, http.HandlerFunc(echo))
	conn := must(net.Dial("tcp", r.address))(t)
	defer conn.Close()
	client := r.client(t, false)
	response := must(client.Get("https://" + r.address + "/x"))(t) // by now the silent one is accepted
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), readHeaderTimeout-time.Second)
	defer cancel()
	if err := r.server.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v: a silent connection held it up", err)
	}
}

// A stream that says nothing for a while stays; a client that does not read is let go.
func TestWritesAreBoundedAndStreamsAreNot(t *testing.T) {
	client, served := net.Pipe()
	defer client.Close()
	defer served.Close()
	waiting := &patient{served, quickWriteTimeout}
	go func() {
		time.Sleep(50 * time.Millisecond)
		io.ReadFull(client, make([]byte, 1))
	}()
	if _, err := waiting.Write([]byte("x")); err != nil {
		t.Errorf("write to a slow reader: %v", err)
	}
	deadlines := &deadlineConn{Conn: served}
	go io.ReadFull(client, make([]byte, 1))
	(&patient{deadlines, quickWriteTimeout}).Write([]byte("y"))
	if left := time.Until(deadlines.write); left <= 0 || left > quickWriteTimeout {
		t.Errorf("a write may take %v", left)
	}
}

type deadlineConn struct {
	net.Conn
	write time.Time
}

func (c *deadlineConn) SetWriteDeadline(at time.Time) error {
	c.write = at
	return c.Conn.SetWriteDeadline(at)
}
