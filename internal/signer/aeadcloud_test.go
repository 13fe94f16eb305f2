//go:build awskms || gcpkms

package signer

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/secret"
)

// mask stands for a service's cipher: what goes out differs from what came in, and ends in a tag.
func mask(plaintext []byte, tag byte) []byte {
	masked := bytes.Clone(plaintext)
	for i := range masked {
		masked[i] ^= 0x5a
	}
	return append(masked, tag)
}

func unmask(ciphertext []byte) []byte {
	plaintext := mask(ciphertext[:len(ciphertext)-1], 0)
	return plaintext[:len(plaintext)-1]
}

// exerciseAEAD has the key of a URL bind associated data, and wrap, rotate and open a keyset, until the service stops.
func exerciseAEAD(t *testing.T, url string, stop func()) {
	t.Helper()
	key, err := OpenAEAD(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	ciphertext, err := key.Encrypt([]byte("a data key"), []byte("place"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := key.Decrypt(ciphertext, []byte("place")); err != nil || string(got) != "a data key" {
		t.Errorf("decrypted %q, %v", got, err)
	}
	if _, err := key.Decrypt(ciphertext, []byte("elsewhere")); err == nil {
		t.Error("decrypted for another place")
	}

	path, place := filepath.Join(t.TempDir(), "keyset"), []byte("row")
	ring, err := secret.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := ring.Seal(secret.New([]byte("whsec_x")), place)
	if err != nil {
		t.Fatal(err)
	}
	if err := secret.Wrap(path, key); err != nil {
		t.Fatal(err)
	}
	if _, err := secret.Prepare(path, key); err != nil {
		t.Fatal(err)
	}
	if _, err := secret.Promote(path, key); err != nil {
		t.Fatal(err)
	}
	if ring, err = secret.Open(path, key); err != nil {
		t.Fatal(err)
	}
	if got, err := ring.Unseal(sealed, place); err != nil || string(got.Reveal()) != "whsec_x" {
		t.Errorf("sealed before it was wrapped and rotated: %v", err)
	}
	stop()
	if _, err := secret.Open(path, key); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("with the service gone: %v", err)
	}
	if _, err := ring.Unseal(sealed, place); err != nil {
		t.Errorf("open already, with the service gone: %v", err)
	}
}
