package server

import (
	"context"
	"net"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/miekg/dns"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/delivery"
)

// The same table as at dial time, see internal/delivery.
func hostileURLs(t testing.TB) []string {
	text := must(os.ReadFile("../internal/delivery/testdata/hostile-urls.txt"))(t)
	var urls []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimRight(line, "\n"); line != "" && line[0] != '#' {
			urls = append(urls, strings.ReplaceAll(line, "PORT", "8080"))
		}
	}
	return urls
}

func TestHostileURLsAreRefusedAtCreation(t *testing.T) {
	guard := delivery.NewGuard(nil)
	urls := hostileURLs(t)
	if len(urls) < 60 {
		t.Fatalf("only %d hostile URLs", len(urls))
	}
	for _, hostile := range urls {
		if err := checkURL(guard, "destination.url", hostile); err == nil {
			t.Errorf("%s was taken", hostile)
		}
	}
	for _, fine := range []string{
		"https://example.com/", "https://EXAMPLE.com.:8443/a?b=c", "http://1.1.1.1/", "http://[2606:4700::1111]:80/", "https://xn--bcher-kva.example/",
		"https://a_b.example.com/", "https://0x.example.com/", "https://127.example.com/", "https://4.example/", "https://hooks.0xab.example/",
	} {
		if err := checkURL(guard, "destination.url", fine); err != nil {
			t.Errorf("%s was refused: %v", fine, err)
		}
	}
}

// All of the table by the API, as the URL of a destination and as that of its token endpoint; and names that lead inside.
func TestHostileURLsMakeNoDestination(t *testing.T) {
	r := newRig(t)
	r.deps.AllowedDestinations, r.deps.Resolver = nil, nameServer(t, map[string]string{"inside.example.com.": "10.0.0.7", "outside.example.com.": "93.184.216.34"})
	strict := httptest.NewServer(New(r.deps))
	t.Cleanup(strict.Close)
	r.url = strict.URL
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	try := func(d *kapselv1.Destination) error {
		d.EndpointId = e.Id
		_, err := a.destinations.CreateDestination(t.Context(), &kapselv1.CreateDestinationRequest{Destination: d})
		return err
	}
	for _, hostile := range append(hostileURLs(t), "http://inside.example.com/", "https://INSIDE.example.com.:444/x") {
		if err := try(&kapselv1.Destination{Url: hostile}); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("%s: %v", hostile, err)
		}
		token := strings.Replace(hostile, "http:", "https:", 1)
		err := try(&kapselv1.Destination{Url: "https://outside.example.com/", ClientCredentials: &kapselv1.ClientCredentials{TokenUrl: token, ClientId: "a", ClientSecret: "b"}})
		if connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("token URL %s: %v", token, err)
		}
	}
	if err := try(&kapselv1.Destination{Url: "https://outside.example.com/"}); err != nil {
		t.Errorf("the control: %v", err)
	}
}

// nameServer is a real one, on loopback. Names it does not know do not exist.
func nameServer(t *testing.T, addresses map[string]string) *net.Resolver {
	t.Helper()
	packets := must(net.ListenPacket("udp", "127.0.0.1:0"))(t)
	server := &dns.Server{PacketConn: packets, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, asked *dns.Msg) {
		answer := new(dns.Msg)
		answer.SetReply(asked)
		question := asked.Question[0]
		address, found := addresses[strings.ToLower(question.Name)]
		switch {
		case !found:
			answer.Rcode = dns.RcodeNameError
		case question.Qtype == dns.TypeA:
			answer.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.ParseIP(address)}}
		}
		w.WriteMsg(answer)
	})}
	done := make(chan struct{})
	go func() { server.ActivateAndServe(); close(done) }()
	t.Cleanup(func() { server.Shutdown(); <-done })
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", packets.LocalAddr().String())
	}}
}

// What is taken is neither a blocked address nor anything that a reader could take for one.
func FuzzCheckURL(f *testing.F) {
	for _, hostile := range hostileURLs(f) {
		f.Add(hostile)
	}
	f.Add("https://example.com/")
	guard := delivery.NewGuard(nil)
	f.Fuzz(func(t *testing.T, text string) {
		if checkURL(guard, "destination.url", text) != nil {
			return
		}
		u, err := url.Parse(text)
		if err != nil || u.User != nil || u.Hostname() == "" {
			t.Fatalf("%q was taken", text)
		}
		host := strings.TrimSuffix(u.Hostname(), ".")
		if addr, err := netip.ParseAddr(host); err == nil {
			if guard.SafeAddr(addr.Unmap()) != nil {
				t.Fatalf("%q leads to %s", text, addr)
			}
			return
		}
		last := host[strings.LastIndexByte(host, '.')+1:]
		if strings.Trim(last, "0123456789") == "" || strings.EqualFold(host, "localhost") {
			t.Fatalf("%q may be read as an address", text)
		}
	})
}
