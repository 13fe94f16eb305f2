package delivery

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/ledger"
)

func attemptAt(t *testing.T, s *Sender, url string) *ledger.Attempt {
	t.Helper()
	return s.Send(t.Context(), Job{Duty: ledger.Duty{Event: newEvent([]byte("{}"))}, Destination: newDestination(t, url)})
}

// listenAt starts a sink on an address of loopback and returns its port.
func listenAt(t *testing.T, address string, handler http.HandlerFunc) string {
	t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("listen on %s: %v", address, err)
	}
	sink := httptest.NewUnstartedServer(handler)
	sink.Listener.Close()
	sink.Listener = listener
	sink.Start()
	t.Cleanup(sink.Close)
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	return port
}

// nameServer answers the A questions of any name by answer, and has no other records.
func nameServer(t *testing.T, answer func() []netip.Addr) *net.Resolver {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			end := 12 // of the question: labels, a zero, type and class (RFC 1035 section 4.1.2)
			for end < n && buffer[end] != 0 {
				end += 1 + int(buffer[end])
			}
			end += 5
			if end > n {
				continue
			}
			var found []netip.Addr
			if binary.BigEndian.Uint16(buffer[end-4:]) == 1 {
				found = answer()
			}
			reply := append([]byte{buffer[0], buffer[1], 0x81, 0x80, 0, 1, 0, byte(len(found)), 0, 0, 0, 0}, buffer[12:end]...)
			for _, ip := range found {
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4)
				reply = append(reply, ip.AsSlice()...)
			}
			conn.WriteTo(reply, from)
		}
	}()
	t.Cleanup(func() {
		conn.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

// proxy is an egress proxy. It notes what it was asked to connect to.
type proxy struct {
	url   *url.URL
	mu    sync.Mutex
	asked []string
	auth  []string
}

func newProxy(t *testing.T) *proxy {
	t.Helper()
	p := new(proxy)
	address := raw(t, func(conn *net.TCPConn) {
		in := bufio.NewReader(conn)
		request, err := http.ReadRequest(in)
		if err != nil || request.Method != http.MethodConnect {
			io.WriteString(conn, "HTTP/1.1 405 Only CONNECT\r\nContent-Length: 0\r\n\r\n")
			return
		}
		p.mu.Lock()
		p.asked, p.auth = append(p.asked, request.RequestURI), append(p.auth, request.Header.Get("Proxy-Authorization"))
		p.mu.Unlock()
		onward, err := net.Dial("tcp", request.RequestURI)
		if err != nil {
			io.WriteString(conn, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
			return
		}
		defer onward.Close()
		io.WriteString(conn, "HTTP/1.1 200 Connected\r\n\r\n")
		go func() {
			io.Copy(onward, in)
			onward.(*net.TCPConn).CloseWrite()
		}()
		io.Copy(conn, onward)
	})
	p.url, _ = url.Parse(address)
	return p
}

func proxied(t *testing.T, p *url.URL, allowed ...netip.Prefix) *Sender {
	t.Helper()
	s := NewProxiedSender(p, allowed, "test")
	t.Cleanup(s.Close)
	return s
}

// A name that is public when it is checked and private when it is used is checked at each use.
func TestRebindingIsSeenAtEachConnection(t *testing.T) {
	for name, through := range map[string]bool{"direct": false, "through a proxy": true} {
		t.Run(name, func(t *testing.T) {
			var inner, outer atomic.Int64
			port := listenAt(t, "127.0.0.2:0", func(w http.ResponseWriter, _ *http.Request) {
				outer.Add(1)
				w.Header().Set("Connection", "close")
			})
			listenAt(t, "127.0.0.1:"+port, func(http.ResponseWriter, *http.Request) { inner.Add(1) })
			var p *url.URL
			if through {
				p = newProxy(t).url
			}
			sender := proxied(t, p, netip.MustParsePrefix("127.0.0.2/32"))
			var lookups atomic.Int64
			sender.dialer.resolver = nameServer(t, func() []netip.Addr {
				if lookups.Add(1) == 1 {
					return []netip.Addr{netip.MustParseAddr("127.0.0.2")}
				}
				return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
			})
			if a := attemptAt(t, sender, "http://rebind.example.com:"+port+"/"); a.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED {
				t.Fatalf("first attempt: %+v", a)
			}
			if a := attemptAt(t, sender, "http://rebind.example.com:"+port+"/"); a.Failure != leafv1.Failure_FAILURE_BLOCKED_ADDRESS {
				t.Errorf("second attempt: %v (%s)", a.Failure, a.Diagnosis)
			}
			if outer.Load() != 1 || inner.Load() != 0 {
				t.Errorf("the allowed sink got %d requests, the private one %d", outer.Load(), inner.Load())
			}
		})
	}
}

func TestAddressesThatHideOthersAreRefused(t *testing.T) {
	p := newProxy(t)
	for name, sender := range map[string]*Sender{"direct": proxied(t, nil), "through a proxy": proxied(t, p.url)} {
		for _, host := range []string{"[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]", "[64:ff9b::a9fe:a9fe]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::1]",
			"[2001:0:7f00:1::1]", "[::7f00:1]", "169.254.169.254", "169.254.170.2", "[fd00:ec2::254]", "100.100.100.200", "192.0.0.192", "127.0.0.1",
			"10.0.0.1", "0.0.0.0", "192.88.99.1", "198.18.0.1"} {
			for _, scheme := range []string{"http://", "https://"} {
				if a := attemptAt(t, sender, scheme+host+":9/"); a.Failure != leafv1.Failure_FAILURE_BLOCKED_ADDRESS {
					t.Errorf("%s: %s%s: %v (%s)", name, scheme, host, a.Failure, a.Diagnosis)
				}
			}
		}
	}
	if len(p.asked) != 0 {
		t.Errorf("the proxy was asked for %v", p.asked)
	}
}

// The proxy gets the address that was checked; the destination sees its own name.
func TestProxyGetsTheCheckedAddress(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			hosts := make(chan string, 1)
			sink := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				host := r.Host
				if r.TLS != nil {
					host += " " + r.TLS.ServerName
				}
				hosts <- host
			}))
			if scheme == "https" {
				sink.StartTLS()
			} else {
				sink.Start()
			}
			t.Cleanup(sink.Close)
			p := newProxy(t)
			withUser := *p.url
			withUser.User = url.UserPassword("egress", "pass word")
			sender := proxied(t, &withUser, netip.MustParsePrefix("127.0.0.1/32"))
			if scheme == "https" {
				sender.secure.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
				sender.secure.TLSClientConfig.RootCAs.AddCert(sink.Certificate())
			}
			sender.dialer.resolver = nameServer(t, func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} })
			_, port, _ := net.SplitHostPort(sink.Listener.Addr().String())
			if a := attemptAt(t, sender, scheme+"://example.com:"+port+"/hook"); a.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED {
				t.Fatalf("attempt: %+v", a)
			}
			want := "example.com:" + port
			if scheme == "https" {
				want += " example.com"
			}
			if got := <-hosts; got != want {
				t.Errorf("the sink saw %q, want %q", got, want)
			}
			if len(p.asked) != 1 || p.asked[0] != "127.0.0.1:"+port || p.auth[0] != "Basic ZWdyZXNzOnBhc3Mgd29yZA==" {
				t.Errorf("the proxy was asked for %v with %q", p.asked, p.auth)
			}
		})
	}
}

// A proxy that fails is said to have failed, and the connection is never made without it.
func TestFailingProxyIsNotGoneAround(t *testing.T) {
	var reached atomic.Int64
	sink := newSink(t, func(http.ResponseWriter, *http.Request) { reached.Add(1) })
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	for name, test := range map[string]struct {
		proxy string
		want  leafv1.Failure
	}{
		"away":           {gone.URL, leafv1.Failure_FAILURE_CONNECT},
		"refuses":        {raw(t, answering("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")), leafv1.Failure_FAILURE_CONNECT},
		"no HTTP":        {raw(t, answering("SSH-2.0-x\r\n")), leafv1.Failure_FAILURE_CONNECT},
		"hangs up":       {raw(t, func(conn *net.TCPConn) { readRequest(conn) }), leafv1.Failure_FAILURE_CONNECT},
		"talks too much": {raw(t, answering("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")), leafv1.Failure_FAILURE_CONNECT},
		"endless": {raw(t, func(conn *net.TCPConn) {
			readRequest(conn)
			for err := error(nil); err == nil; {
				_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 1000))
			}
		}), leafv1.Failure_FAILURE_CONNECT},
		"silent": {raw(t, func(conn *net.TCPConn) { io.Copy(io.Discard, conn) }), leafv1.Failure_FAILURE_TIMEOUT},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := url.Parse(test.proxy)
			if err != nil {
				t.Fatal(err)
			}
			destination := newDestination(t, sink.URL)
			destination.ConnectTimeout = 300 * time.Millisecond
			a := proxied(t, p, loopback...).Send(t.Context(), Job{Duty: ledger.Duty{Event: newEvent([]byte("{}"))}, Destination: destination})
			if a.Failure != test.want || !strings.Contains(a.Diagnosis, "proxy") {
				t.Errorf("got %v (%s), want %v", a.Failure, a.Diagnosis, test.want)
			}
		})
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the sink saw %d requests", n)
	}
}

func TestRedirectIsDiagnosed(t *testing.T) {
	for _, status := range []int{301, 302, 307, 308} {
		sink := newSink(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest", status)
		})
		a := attemptAt(t, newSender(t), sink.URL)
		if want := fmt.Sprintf("status %d: redirects are not followed", status); !strings.Contains(a.Diagnosis, want) || !strings.Contains(a.Diagnosis, "169.254.169.254") {
			t.Errorf("diagnosis %q", a.Diagnosis)
		}
	}
}
