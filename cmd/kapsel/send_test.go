package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/signature"
)

// What kapsel send posts is verified as the endpoint of the preset would.
func TestSendSignsAsEveryPreset(t *testing.T) {
	private, public := signature.NewKeyPair()
	hexOf := func(text, prefix string, skip int) string {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(text, prefix))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%x", raw[skip:])
	}
	bodies := map[string]string{
		"adyen":           `{"notificationItems":[{"NotificationRequestItem":{"additionalData":{"hmacSignature":""},"pspReference":"p"}}]}`,
		"microsoft-graph": `{"value":[{"clientState":""}]}`,
		"linear":          `{"webhookTimestamp":0}`,
	}
	for _, p := range signature.Presets() {
		sender := p.NewSecret()
		receiver := sender
		switch p.KeyForm {
		case signature.KeyHex:
			sender = fmt.Sprintf("%x", sender)
			receiver = sender
		case signature.KeyEd25519:
			sender, receiver = hexOf(private, "whsk_", 0), hexOf(public, "whpk_", 0)
		case signature.KeyECDSA:
			sender, receiver = ecdsaPair(t)
		}
		t.Run(p.Name, func(t *testing.T) {
			var secrets [][]byte
			if p.Algorithm != signature.AlgorithmNone {
				secrets = [][]byte{[]byte(receiver)}
			}
			verifier, err := signature.NewVerifier(signature.Config{Preset: p.Name}, secrets)
			if err != nil {
				t.Fatal(err)
			}
			var server *httptest.Server
			server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				request := signature.Request{Method: r.Method, URL: verifier.URL(server.URL+r.URL.Path, r.URL.RawQuery), Header: r.Header, Body: body}
				if err := verifier.Verify(request, time.Now()); err != nil {
					t.Errorf("posted what does not verify: %v", err)
				}
				w.WriteHeader(verifier.Acknowledgement())
			}))
			defer server.Close()
			body := bodies[p.Name]
			if body == "" {
				body = `{"id":"1"}`
			}
			file := filepath.Join(t.TempDir(), "body.json")
			if err := os.WriteFile(file, bytes.TrimSpace([]byte(body)), 0o600); err != nil {
				t.Fatal(err)
			}
			if code, text := runCaptured(t, "send", file, "--preset", p.Name, "--ingest-url", server.URL+"/ingest/ep_1", "--secret", sender); code != 0 {
				t.Errorf("exit %d: %s", code, text)
			}
		})
	}
}

// ecdsaPair returns a private and a public key in base64.
func ecdsaPair(t *testing.T) (private, public string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sender, err1 := x509.MarshalPKCS8PrivateKey(k)
	receiver, err2 := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(sender), base64.StdEncoding.EncodeToString(receiver)
}
