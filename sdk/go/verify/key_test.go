package verify

import (
	"bytes"
	"testing"
)

// An attacker who tries long enough finds a key with the trusted key's id, and names it in his package.
func TestKeyWithTheIDOfATrustedOneIsNotTrusted(t *testing.T) {
	trusted := key{"log.example.com/log/1", typeEd25519, bytes.Repeat([]byte{1}, 32)}
	forged := key{trusted.name, typeEd25519, bytes.Repeat([]byte{2}, 32)}
	signed := []line{{
		lineID:   lineID{trusted.name, trusted.id(typeEd25519)},
		verifier: lineVerifier{forged, typeEd25519},
	}}
	if find(signed, trusted, typeEd25519) != nil {
		t.Error("a line that another key has signed counts as the trusted key's")
	}
	if find(signed, forged, typeEd25519) == nil {
		t.Error("the line is not found under the key that signed it")
	}
}
