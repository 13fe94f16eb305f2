//go:build awskms

package signer

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// The service is a server here that speaks KMS's protocol (AWS JSON 1.1): nobody has an account to test with.
func TestAWSKMSSignsLikeEd25519(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	wrong := false
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request struct {
			KeyId, MessageType, SigningAlgorithm string
			Message                              []byte
		}
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil || request.KeyId != "alias/kapsel-log" ||
			!strings.Contains(r.Header.Get("Authorization"), "/eu-central-1/kms/aws4_request") {
			http.Error(w, `{"__type":"NotFoundException"}`, http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		switch target := r.Header.Get("X-Amz-Target"); {
		case target == "TrentService.GetPublicKey":
			json.NewEncoder(w).Encode(map[string]any{"KeyId": "1", "PublicKey": der, "KeySpec": "ECC_NIST_EDWARDS25519", "KeyUsage": "SIGN_VERIFY"})
		case target == "TrentService.Sign" && request.MessageType == "RAW" && request.SigningAlgorithm == "ED25519_SHA_512":
			signature := ed25519.Sign(private, request.Message)
			if wrong {
				signature[0] ^= 1
			}
			json.NewEncoder(w).Encode(map[string]any{"KeyId": "1", "Signature": signature, "SigningAlgorithm": request.SigningAlgorithm})
		default:
			http.Error(w, `{"__type":"UnsupportedOperationException"}`, http.StatusBadRequest)
		}
	}))
	t.Cleanup(service.Close)
	t.Setenv("AWS_ENDPOINT_URL_KMS", service.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2-hunter2")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	key, err := Open(t.Context(), "awskms:///alias/kapsel-log?region=eu-central-1")
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("a checkpoint")
	signature, err := key.Sign(nil, message, crypto.Hash(0))
	if err != nil || !public.Equal(key.Public()) || !ed25519.Verify(public, message, signature) {
		t.Errorf("signature of %v: %v", key, err)
	}
	if _, err := key.Sign(nil, make([]byte, 64), crypto.SHA512); err == nil {
		t.Error("a digest was signed as if it were a message")
	}
	wrong = true
	if _, err := key.Sign(nil, message, crypto.Hash(0)); err == nil {
		t.Error("a wrong signature was taken")
	}
	for _, url := range []string{"awskms:///alias/other?region=eu-central-1", "awskms://alias/kapsel-log", "awskms:///"} {
		if _, err := Open(t.Context(), url); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", url, err)
		}
	}
}
