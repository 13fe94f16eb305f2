package delivery

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

// What tenants read of a failure says nothing of the network that the node is in.
func TestDiagnosesHaveNoAddressOfOurs(t *testing.T) {
	loopback := netip.MustParsePrefix("127.0.0.0/8")
	released := make(chan struct{})
	defer close(released)
	silent := newSink(t, func(http.ResponseWriter, *http.Request) { <-released })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := listener.Addr().String()
	listener.Close()
	nowhere := proxied(t, nil, loopback)
	nowhere.dialer.resolver = nameServer(t, func() []netip.Addr { return nil })

	for name, test := range map[string]struct {
		sender *Sender
		url    string
		want   string
		not    []string
	}{
		"a destination that is silent": {proxied(t, nil, loopback), silent.URL, "no answer within", []string{"->"}},
		"a proxy that is gone":         {proxied(t, &url.URL{Scheme: "http", Host: closed}, loopback), "http://127.0.0.1:9/", "egress proxy", []string{closed}},
		"a name that leads nowhere":    {nowhere, "http://nowhere.example.com/", "nowhere.example.com", []string{":53"}},
	} {
		d := newDestination(t, test.url)
		d.Timeout = time.Second
		a := sendTo(t, test.sender, d)
		if !strings.Contains(a.Diagnosis, test.want) {
			t.Errorf("%s: %q, want %q in it", name, a.Diagnosis, test.want)
		}
		for _, ours := range test.not {
			if strings.Contains(a.Diagnosis, ours) {
				t.Errorf("%s: %q has %q in it", name, a.Diagnosis, ours)
			}
		}
	}
	unknown := &proxyError{&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "proxy.internal", Server: "192.0.2.1:53"}}}
	if got := withoutOurs(unknown); got != "egress proxy: dial tcp: lookup: no such host" {
		t.Errorf("a proxy without an address: %q", got)
	}
}
