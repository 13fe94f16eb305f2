//go:build gcpkms

package signer

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/secret"
)

// The service, and the one that gives tokens for a service account, are servers here that speak their REST protocols.
func TestGCPKMSEncryptsTheKeysetOfSecrets(t *testing.T) {
	const name = "projects/p/locations/europe-west3/keyRings/r/cryptoKeys/secrets"
	var mu sync.Mutex
	var bound []string // associated data of what the server has encrypted; the index is the ciphertext's last byte
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/token" && r.FormValue("assertion") != "" {
			json.NewEncoder(w).Encode(map[string]any{"access_token": "hunter2", "token_type": "Bearer", "expires_in": 3600})
			return
		}
		var request struct{ Plaintext, Ciphertext, AdditionalAuthenticatedData []byte }
		method, _ := strings.CutPrefix(r.URL.Path, "/v1/"+name)
		switch err := json.NewDecoder(r.Body).Decode(&request); {
		case r.Header.Get("Authorization") != "Bearer hunter2":
			w.WriteHeader(http.StatusUnauthorized)
		case err != nil || r.Method != http.MethodPost:
			w.WriteHeader(http.StatusBadRequest)
		case method == ":encrypt" && len(request.Plaintext) > 0:
			text := mask(request.Plaintext, byte(len(bound)))
			bound = append(bound, string(request.AdditionalAuthenticatedData))
			json.NewEncoder(w).Encode(map[string]any{"name": name + "/cryptoKeyVersions/1", "ciphertext": text})
		case method == ":decrypt" && len(request.Ciphertext) > 0:
			text := request.Ciphertext
			index := int(text[len(text)-1])
			if index >= len(bound) || bound[index] != string(request.AdditionalAuthenticatedData) {
				w.WriteHeader(http.StatusBadRequest)
				w.Write([]byte(`{"error":{"code":400,"message":"Decryption failed","status":"INVALID_ARGUMENT"}}`))
				return
			}
			json.NewEncoder(w).Encode(map[string]any{"plaintext": unmask(text)})
		default:
			w.WriteHeader(http.StatusNotFound)
			w.Write([]byte(`{"error":{"code":404,"message":"no such key","status":"NOT_FOUND"}}`))
		}
	}))
	t.Cleanup(service.Close)
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", serviceAccount(t, service.URL+"/token"))
	other, err := OpenAEAD(t.Context(), "gcpkms:///"+strings.Replace(name, "secrets", "other", 1)+"?endpoint="+service.URL)
	if err != nil {
		t.Fatal(err)
	}
	_, err = secret.Open(filepath.Join(t.TempDir(), "keyset"), other)
	if err == nil || !strings.Contains(err.Error(), "no such key") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("another key: %v", err)
	}
	exerciseAEAD(t, "gcpkms://"+name+"?endpoint="+service.URL, service.Close)

	for _, url := range []string{"gcpkms://projects/p", "gcpkms://" + name + "/cryptoKeyVersions/1"} {
		if _, err := OpenAEAD(t.Context(), url); err == nil || errors.Is(err, errNotBuilt) {
			t.Errorf("%s: %v", url, err)
		}
	}
}
