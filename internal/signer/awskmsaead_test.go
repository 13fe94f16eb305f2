//go:build awskms

package signer

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/secret"
)

// The service is a server here that speaks KMS's protocol (AWS JSON 1.1), with its limit on what Encrypt takes.
func TestAWSKMSEncryptsTheKeysetOfSecrets(t *testing.T) {
	var mu sync.Mutex
	var contexts []map[string]string // of what the server has encrypted; the index is the ciphertext's last byte
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var request struct {
			KeyId                     string
			Plaintext, CiphertextBlob []byte
			EncryptionContext         map[string]string
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil || request.KeyId != "alias/kapsel-secrets" ||
			!strings.Contains(r.Header.Get("Authorization"), "/eu-central-1/kms/aws4_request") {
			http.Error(w, `{"__type":"NotFoundException","message":"no such key"}`, http.StatusBadRequest)
			return
		}
		switch target := r.Header.Get("X-Amz-Target"); {
		case target == "TrentService.Encrypt" && len(request.Plaintext) > 0 && len(request.Plaintext) <= 4096:
			blob := mask(request.Plaintext, byte(len(contexts)))
			contexts = append(contexts, request.EncryptionContext)
			json.NewEncoder(w).Encode(map[string]any{"KeyId": "1", "CiphertextBlob": blob})
		case target == "TrentService.Decrypt" && len(request.CiphertextBlob) > 0:
			blob := request.CiphertextBlob
			index := int(blob[len(blob)-1])
			if index >= len(contexts) || !maps.Equal(contexts[index], request.EncryptionContext) {
				http.Error(w, `{"__type":"InvalidCiphertextException"}`, http.StatusBadRequest)
				return
			}
			json.NewEncoder(w).Encode(map[string]any{"KeyId": "1", "Plaintext": unmask(blob)})
		default:
			http.Error(w, `{"__type":"ValidationException"}`, http.StatusBadRequest)
		}
	}))
	t.Cleanup(service.Close)
	t.Setenv("AWS_ENDPOINT_URL_KMS", service.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_MAX_ATTEMPTS", "1")
	exerciseAEAD(t, "awskms:///alias/kapsel-secrets?region=eu-central-1", service.Close)

	other, err := OpenAEAD(t.Context(), "awskms:///alias/other?region=eu-central-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := secret.Open(filepath.Join(t.TempDir(), "keyset"), other); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("another key: %v", err)
	}
	for _, url := range []string{"awskms://alias/kapsel-secrets", "awskms:///"} {
		if _, err := OpenAEAD(t.Context(), url); err == nil || errors.Is(err, errNotBuilt) {
			t.Errorf("%s: %v", url, err)
		}
	}
}
