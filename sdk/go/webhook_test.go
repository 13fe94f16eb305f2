package kapsel_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

var (
	macKey     = bytes.Repeat([]byte{7}, 32)
	macSecret  = "whsec_" + base64.StdEncoding.EncodeToString(macKey)
	privateKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, 32))
	publicKey  = "whpk_" + base64.StdEncoding.EncodeToString(privateKey.Public().(ed25519.PublicKey))
	signedAt   = time.Unix(1_700_000_000, 0)
	sample     = []byte{0, 255, 10, '{', '}'}
)

func signedHeader(body []byte) http.Header {
	stamp := fmt.Sprint(signedAt.Unix())
	content := append([]byte("evt_1."+stamp+"."), body...)
	mac := hmac.New(sha256.New, macKey)
	mac.Write(content)
	encode := base64.StdEncoding.EncodeToString
	return http.Header{
		"Webhook-Id": {"evt_1"}, "Webhook-Timestamp": {stamp},
		"Webhook-Signature": {"v1,AAAA v2," + encode(mac.Sum(nil)) + " v1a," + encode(ed25519.Sign(privateKey, content)) + " v1," + encode(mac.Sum(nil))},
	}
}

func verifier(t *testing.T, secrets ...string) *kapsel.Verifier {
	t.Helper()
	v, err := kapsel.NewVerifier(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	v.Now = func() time.Time { return signedAt }
	return v
}

func TestWebhooksAreVerifiedWithAnySecret(t *testing.T) {
	other := "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, 24))
	for name, secret := range map[string]string{"v1": macSecret, "v1a": publicKey} {
		v := verifier(t, other, secret)
		webhook, err := v.Verify(signedHeader(sample), sample)
		if err != nil || webhook.ID != "evt_1" || !webhook.Timestamp.Equal(signedAt) || !bytes.Equal(webhook.Body, sample) {
			t.Errorf("%s: got %v, %v", name, webhook, err)
		}
		for bit := range 8 * len(sample) {
			flipped := bytes.Clone(sample)
			flipped[bit/8] ^= 1 << (bit % 8)
			if _, err := v.Verify(signedHeader(sample), flipped); !errors.Is(err, kapsel.ErrSignature) {
				t.Errorf("%s: bit %d flipped: %v", name, bit, err)
			}
		}
		if _, err := verifier(t, other).Verify(signedHeader(sample), sample); !errors.Is(err, kapsel.ErrSignature) {
			t.Errorf("%s: another secret: %v", name, err)
		}
	}
}

func TestWebhooksAreHeldToTheTolerance(t *testing.T) {
	v := verifier(t, macSecret)
	for age, ok := range map[time.Duration]bool{300 * time.Second: true, -300 * time.Second: true, 301 * time.Second: false, -301 * time.Second: false} {
		v.Now = func() time.Time { return signedAt.Add(age) }
		if _, err := v.Verify(signedHeader(sample), sample); (err == nil) != ok || err != nil && !errors.Is(err, kapsel.ErrTime) {
			t.Errorf("%v: %v", age, err)
		}
	}
}

func TestHostileHeadersAreRefused(t *testing.T) {
	v := verifier(t, macSecret, publicKey)
	for name, values := range map[string][]string{
		"Webhook-Id":        {"", "evt_2"},
		"Webhook-Timestamp": {"", "-1", "1e9", strings.Repeat("9", 400), "1700000001"},
		"Webhook-Signature": {"", "v1", "v1,%%%", "v1, v1a,", strings.Repeat("v1,AAAA ", 100_000)},
	} {
		for _, value := range values {
			header := signedHeader(sample)
			header.Set(name, value)
			if _, err := v.Verify(header, sample); !errors.Is(err, kapsel.ErrHeader) && !errors.Is(err, kapsel.ErrSignature) {
				t.Errorf("%s %.20q: %v", name, value, err)
			}
		}
	}
}

func TestMalformedSecretsAreRefused(t *testing.T) {
	for _, secret := range []string{"", "whsec_", "whsec_%", "whpk_AAAA", "whsk_AAAA"} {
		if _, err := kapsel.NewVerifier(secret); err == nil {
			t.Errorf("%q was taken", secret)
		}
	}
	if _, err := kapsel.NewVerifier(); err == nil {
		t.Error("no secret was taken")
	}
}

func TestHandlerLetsOnlyVerifiedWebhooksThrough(t *testing.T) {
	v := verifier(t, macSecret)
	v.MaxBodyBytes = 10
	handler := v.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if webhook := kapsel.FromContext(r.Context()); webhook == nil || !bytes.Equal(body, webhook.Body) {
			t.Error("the handler does not find the webhook")
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	for _, test := range []struct {
		name   string
		header http.Header
		body   []byte
		status int
	}{
		{"signed", signedHeader(sample), sample, 204},
		{"forged", signedHeader(sample), []byte("other"), 401},
		{"unsigned", http.Header{}, sample, 400},
		{"too large", signedHeader(make([]byte, 11)), make([]byte, 11), 413},
	} {
		request := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(test.body))
		request.Header = test.header
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, request)
		if recorder.Code != test.status {
			t.Errorf("%s: status %d, want %d", test.name, recorder.Code, test.status)
		}
	}
}
