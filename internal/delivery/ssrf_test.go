package delivery

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/certtest"
	"github.com/kapsel-dev/kapsel/internal/ledger"
)

// hostileURLs is the table that creation is tested by too. Port is that of a server that nothing may reach.
func hostileURLs(t *testing.T, port string) []string {
	t.Helper()
	text, err := os.ReadFile("testdata/hostile-urls.txt")
	if err != nil {
		t.Fatal(err)
	}
	var urls []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimRight(line, "\n"); line != "" && line[0] != '#' {
			urls = append(urls, strings.ReplaceAll(line, "PORT", port))
		}
	}
	if len(urls) < 60 {
		t.Fatalf("only %d hostile URLs", len(urls))
	}
	return urls
}

// forbidden is a listener of loopback that counts who reaches it, and a real name server by which every name leads there.
func forbidden(t *testing.T) (port string, reached *atomic.Int64, resolver *net.Resolver) {
	reached = new(atomic.Int64)
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
			reached.Add(1)
			conn.Close()
		}
	}()
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	return port, reached, nameServer(t, func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} })
}

// Whatever a URL looks like, and whatever a name server says, no connection is made, directly or through the proxy.
func TestHostileURLsAreRefusedAtDialTime(t *testing.T) {
	port, reached, resolver := forbidden(t)
	p := newProxy(t)
	direct := NewSender(nil, "test")
	t.Cleanup(direct.Close)
	through := proxied(t, p.url)
	for how, sender := range map[string]*Sender{"direct": direct, "through the proxy": through} {
		sender.dialer.resolver = resolver
		for _, hostile := range hostileURLs(t, port) {
			d := newDestination(t, hostile)
			d.ConnectTimeout, d.Timeout = 2*time.Second, 2*time.Second
			a := sender.Send(t.Context(), Job{Duty: ledger.Duty{Event: newEvent([]byte("{}"))}, Destination: d})
			if a.Outcome != leafv1.Outcome_OUTCOME_FAILED || a.Failure == leafv1.Failure_FAILURE_TIMEOUT || a.Failure == leafv1.Failure_FAILURE_TLS || a.StatusCode != 0 {
				t.Errorf("%s, %s: %v %v: %s", how, hostile, a.Outcome, a.Failure, a.Diagnosis)
			}
		}
	}
	if n := reached.Load(); n > 0 || len(p.asked) > 0 {
		t.Errorf("%d connections were made, the proxy was asked for %v", n, p.asked)
	}
	// The control: with the range allowed, the same server is reached.
	allowed := loopbackSender(t)
	attemptAt(t, allowed, "http://127.0.0.1:"+port+"/")
	if reached.Load() == 0 {
		t.Error("the server cannot be reached at all: the test proves nothing")
	}
}

func TestHostileTokenURLsAreRefusedAtDialTime(t *testing.T) {
	port, reached, resolver := forbidden(t)
	sender := NewSender(nil, "test")
	t.Cleanup(sender.Close)
	sender.dialer.resolver = resolver
	tried := 0
	for _, hostile := range hostileURLs(t, port) {
		rest, plain := strings.CutPrefix(hostile, "http://")
		u, err := url.Parse("https://" + rest)
		if !plain || err != nil || u.User != nil || u.Hostname() == "" || u.Fragment != "" {
			continue // no token URL at all, see route.NewClientCredentials
		}
		tried++
		d := newDestination(t, "https://example.com/")
		d.Timeout = 2 * time.Second
		d.ClientCredentials = clientCredentials(t, &kapselv1.ClientCredentials{TokenUrl: u.String()})
		a := sendTo(t, sender, d)
		if a.Failure != leafv1.Failure_FAILURE_BLOCKED_ADDRESS && a.Failure != leafv1.Failure_FAILURE_AUTHORIZATION {
			t.Errorf("%s: %v: %s", u, a.Failure, a.Diagnosis)
		}
	}
	if tried < 60 || reached.Load() > 0 {
		t.Errorf("%d URLs were tried, %d connections were made", tried, reached.Load())
	}
}

// A name that led to a public address when it was checked, and leads inside when it is connected to.
func TestReboundNameIsRefusedAtEachConnection(t *testing.T) {
	port, reached, _ := forbidden(t)
	var asked atomic.Int64
	resolver := nameServer(t, func() []netip.Addr {
		if asked.Add(1) == 1 {
			return []netip.Addr{netip.MustParseAddr("93.184.216.34")}
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	})
	if found, err := resolver.LookupNetIP(t.Context(), "ip4", "rebinding.example.com"); err != nil || NewGuard(nil).SafeAddr(found[0]) != nil {
		t.Fatalf("at creation: %v, %v", found, err)
	}
	p := newProxy(t)
	for _, sender := range []*Sender{NewSender(nil, "test"), proxied(t, p.url)} {
		t.Cleanup(sender.Close)
		sender.dialer.resolver = resolver
		for range 3 {
			if a := attemptAt(t, sender, "http://rebinding.example.com:"+port+"/"); a.Failure != leafv1.Failure_FAILURE_BLOCKED_ADDRESS {
				t.Errorf("%v: %s", a.Failure, a.Diagnosis)
			}
		}
	}
	if reached.Load() > 0 || len(p.asked) > 0 {
		t.Errorf("%d connections were made, the proxy was asked for %v", reached.Load(), p.asked)
	}
}

// A redirect inside, of a destination or of its token endpoint, is an answer like any other.
func TestRedirectsInsideAreNotFollowed(t *testing.T) {
	port, reached, _ := forbidden(t)
	redirect := func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://127.0.0.1:"+port+"/latest/meta-data/", http.StatusTemporaryRedirect)
	}
	sink := newSink(t, redirect)
	sender := loopbackSender(t)
	if a := attemptAt(t, sender, sink.URL); a.StatusCode != http.StatusTemporaryRedirect || reached.Load() > 0 {
		t.Errorf("status %d, %d connections", a.StatusCode, reached.Load())
	}
	ca := certtest.New(t)
	secure := secureSink(t, ca, nil, redirect)
	d := newDestination(t, secure)
	d.ClientTLS = clientTLS(t, certtest.Pair{}, ca.PEM)
	if a := sendTo(t, sender, d); a.StatusCode != http.StatusTemporaryRedirect || reached.Load() > 0 {
		t.Errorf("https: status %d, %d connections", a.StatusCode, reached.Load())
	}
	d.ClientCredentials = clientCredentials(t, &kapselv1.ClientCredentials{TokenUrl: secure})
	if a := sendTo(t, sender, d); a.Failure != leafv1.Failure_FAILURE_AUTHORIZATION || reached.Load() > 0 {
		t.Errorf("token endpoint: %v, %d connections", a.Failure, reached.Load())
	}
}
