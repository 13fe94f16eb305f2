package node

import (
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/certificate"
	"github.com/kapsel-dev/kapsel/internal/certtest"
)

func TestNodeSpeaksTLSAndShowsARenewedCertificate(t *testing.T) {
	r := newRig(t)
	ca := certtest.New(t)
	cert, key := filepath.Join(t.TempDir(), "tls.crt"), filepath.Join(t.TempDir(), "tls.key")
	write := func(pair certtest.Pair) {
		for name, text := range map[string][]byte{key: pair.Key, cert: pair.Certificate} {
			if err := os.WriteFile(name, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(ca.Issue(t, "127.0.0.1"))
	config := r.config()
	config.TLSCertificate, config.TLSKey, config.AdminListen = cert, key, "127.0.0.1:0"
	n := r.start(config)
	if !strings.HasPrefix(n.URL(), "https://127.0.0.1:") {
		t.Fatalf("URL %s", n.URL())
	}
	get := func() (*http.Response, string) {
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: ca.Pool}, ForceAttemptHTTP2: true}
		defer transport.CloseIdleConnections()
		response, err := (&http.Client{Transport: transport, Timeout: patience}).Get(n.URL() + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, _ := io.ReadAll(response.Body)
		return response, string(body)
	}
	response, body := get()
	if response.StatusCode != http.StatusOK || response.ProtoMajor != 2 || response.Header.Get("Strict-Transport-Security") == "" {
		t.Errorf("%s %s: %q, HSTS %q", response.Proto, response.Status, body, response.Header.Get("Strict-Transport-Security"))
	}
	next := ca.Issue(t, "127.0.0.1")
	write(next)
	for deadline := time.Now().Add(patience); ; time.Sleep(certificate.DefaultPoll / 4) {
		response, _ := get()
		if string(response.TLS.PeerCertificates[0].Raw) == string(next.TLS.Certificate[0]) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the renewed certificate was never shown")
		}
	}
	admin, err := http.Get(n.AdminURL() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	admin.Body.Close()
	if admin.StatusCode != http.StatusOK {
		t.Errorf("admin: %s", admin.Status)
	}
}

func TestTransportSettingsThatCannotBeAreNamed(t *testing.T) {
	for want, c := range map[string]Config{
		"--tls-key":    {TLSCertificate: "a"},
		"not both":     {TLSCertificate: "a", TLSKey: "b", ACME: certificate.Automatic{Hosts: []string{"a.example.com"}}},
		"ACME host":    {ACME: certificate.Automatic{Hosts: []string{"https://a.example.com"}}},
		"CORS origin":  {CORSOrigins: []string{"app.example.com"}},
		"admin listen": {AdminListen: "9464"},
	} {
		c.DatabaseURL, c.StateDir = "postgres://x", "y"
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}
