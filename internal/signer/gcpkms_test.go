//go:build gcpkms

package signer

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The service, and the one that gives tokens for a service account, are servers here that speak their REST protocols.
func TestGCPKMSSignsLikeEd25519(t *testing.T) {
	const name = "projects/p/locations/europe-west3/keyRings/r/cryptoKeys/log/cryptoKeyVersions/1"
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	algorithm := "EC_SIGN_ED25519"
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/token" && r.FormValue("assertion") != "" {
			json.NewEncoder(w).Encode(map[string]any{"access_token": "hunter2", "token_type": "Bearer", "expires_in": 3600})
			return
		}
		var request struct{ Data []byte }
		switch {
		case r.Header.Get("Authorization") != "Bearer hunter2":
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodGet && r.URL.Path == "/v1/"+name+"/publicKey":
			text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
			json.NewEncoder(w).Encode(map[string]any{"pem": string(text), "algorithm": algorithm, "name": name})
		case r.Method == http.MethodPost && r.URL.Path == "/v1/"+name+":asymmetricSign" && json.NewDecoder(r.Body).Decode(&request) == nil:
			json.NewEncoder(w).Encode(map[string]any{"signature": ed25519.Sign(private, request.Data), "name": name})
		default:
			w.WriteHeader(http.StatusNotFound)
			w.Write([]byte(`{"error":{"code":404,"message":"no such key","status":"NOT_FOUND"}}`))
		}
	}))
	t.Cleanup(service.Close)
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", serviceAccount(t, service.URL+"/token"))
	url := "gcpkms://" + name + "?endpoint=" + service.URL
	key, err := Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("a checkpoint")
	signature, err := key.Sign(nil, message, crypto.Hash(0))
	if err != nil || !public.Equal(key.Public()) || !ed25519.Verify(public, message, signature) {
		t.Errorf("signature of %v: %v", key, err)
	}
	algorithm = "EC_SIGN_P256_SHA256"
	for bad, says := range map[string]string{url: "want EC_SIGN_ED25519", strings.Replace(url, "/log/", "/other/", 1): "no such key", "gcpkms://projects/p": "want gcpkms://"} {
		if _, err := Open(t.Context(), bad); err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", bad, err)
		}
	}
}

// serviceAccount writes the file of an account that gets its tokens at a URL.
func serviceAccount(t *testing.T, tokenURL string) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]string{"type": "service_account", "client_email": "kapsel@example.com", "token_uri": tokenURL,
		"private_key_id": "1", "private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "account.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
