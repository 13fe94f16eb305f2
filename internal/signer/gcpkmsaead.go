//go:build gcpkms

package signer

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"github.com/tink-crypto/tink-go/v2/tink"
)

// gcpCryptoKey is a key without a version: the service encrypts under the primary one, and finds the one that decrypts.
var gcpCryptoKey = regexp.MustCompile(`^projects/[^/?#]+/locations/[^/?#]+/keyRings/[^/?#]+/cryptoKeys/[^/?#]+$`)

// openGCPKMSAEAD opens gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K of the purpose ENCRYPT_DECRYPT, with two slashes or
// three. The service needs the role roles/cloudkms.cryptoKeyEncrypterDecrypter.
func openGCPKMSAEAD(ctx context.Context, text string) (tink.AEAD, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errors.New("not a URL")
	}
	name := strings.TrimPrefix(u.Host+u.Path, "/")
	if !gcpCryptoKey.MatchString(name) {
		return nil, errors.New("want gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K")
	}
	service, err := newGCPService(ctx, u.Query().Get("endpoint"), name)
	if err != nil {
		return nil, err
	}
	return &gcpAEAD{service}, nil
}

type gcpAEAD struct{ service *gcpService }

func (a *gcpAEAD) Encrypt(plaintext, associatedData []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), cloudTimeout)
	defer cancel()
	var answer struct{ Ciphertext []byte }
	err := a.service.ask(ctx, http.MethodPost, ":encrypt", map[string][]byte{"plaintext": plaintext, "additionalAuthenticatedData": associatedData}, &answer)
	return answer.Ciphertext, err
}

func (a *gcpAEAD) Decrypt(ciphertext, associatedData []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), cloudTimeout)
	defer cancel()
	var answer struct{ Plaintext []byte }
	err := a.service.ask(ctx, http.MethodPost, ":decrypt", map[string][]byte{"ciphertext": ciphertext, "additionalAuthenticatedData": associatedData}, &answer)
	return answer.Plaintext, err
}
