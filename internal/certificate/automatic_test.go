package certificate

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

// A real ACME authority (Pebble) validates the name by TLS-ALPN-01 at the listener itself, and issues.
func TestCertificateIsGotFromAnACMEAuthority(t *testing.T) {
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
	const host = "hooks.example.com"
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	authority, roots := newAuthority(t, listener.Addr().(*net.TCPAddr).Port, loopbackDNS(t))
	automatic := Automatic{
		Hosts: []string{host}, Directory: t.TempDir(), Authority: authority.URL + wfe.DirectoryPath, Email: "ops@example.com", Client: authority.Client(),
	}
	serve(t, tls.NewListener(listener, automatic.Config()))

	shown := func(name string) (*x509.Certificate, error) {
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 30 * time.Second}, "tcp", listener.Addr().String(), &tls.Config{ServerName: name, RootCAs: roots()})
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0], nil
	}
	first, err := shown(host)
	if err != nil {
		t.Fatalf("no certificate: %v", err)
	}
	if err := first.VerifyHostname(host); err != nil {
		t.Error(err)
	}
	if _, err := shown("other.example.com"); err == nil {
		t.Error("a name that is not listed got a certificate")
	}
	// Another node that shares the directory asks for none.
	again := automatic
	again.Client = &http.Client{Transport: refusing{}}
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, tls.NewListener(other, again.Config()))
	conn, err := tls.Dial("tcp", other.Addr().String(), &tls.Config{ServerName: host, RootCAs: roots()})
	if err != nil {
		t.Fatalf("the kept certificate is not used: %v", err)
	}
	conn.Close()
}

type refusing struct{}

func (refusing) RoundTrip(*http.Request) (*http.Response, error) { return nil, io.ErrUnexpectedEOF }

func newAuthority(t *testing.T, tlsPort int, resolver string) (server *httptest.Server, roots func() *x509.CertPool) {
	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	issuer := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {Description: "default"}})
	validator := va.New(quiet, 0, tlsPort, false, resolver, store)
	front := wfe.New(quiet, store, validator, issuer, []string{"pebble.letsencrypt.org"}, false, false, 1, 1)
	server = httptest.NewTLSServer(front.Handler())
	t.Cleanup(server.Close)
	return server, func() *x509.CertPool {
		pool := x509.NewCertPool()
		pool.AddCert(issuer.GetRootCert(0).Cert)
		return pool
	}
}

func serve(t *testing.T, listener net.Listener) {
	server := &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0)}
	done := make(chan struct{})
	go func() { server.Serve(listener); close(done) }()
	t.Cleanup(func() { server.Close(); <-done })
}

// loopbackDNS resolves every name to 127.0.0.1. Pebble asks by TCP.
func loopbackDNS(t *testing.T) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, asked *dns.Msg) {
		answer := new(dns.Msg)
		answer.SetReply(asked)
		if asked.Question[0].Qtype == dns.TypeA {
			answer.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: asked.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1)}}
		}
		w.WriteMsg(answer)
	})
	server := &dns.Server{Listener: listener, Handler: handler}
	go server.ActivateAndServe()
	t.Cleanup(func() { server.Shutdown() })
	return listener.Addr().String()
}
