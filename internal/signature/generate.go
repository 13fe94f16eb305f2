package signature

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
)

// secretBytes is the length of a new HMAC key: the output size of SHA-256, and within the 24 to
// 64 bytes that Standard Webhooks asks for.
const secretBytes = 32

// NewSecret returns a new random HMAC secret, whsec_ and base64. crypto/rand does not fail: it
// ends the process if the system has no randomness.
func NewSecret() string {
	var raw [secretBytes]byte
	rand.Read(raw[:])
	return prefixHMACSecret + base64.StdEncoding.EncodeToString(raw[:])
}

// NewKeyPair returns a new Ed25519 key pair: whsk_ for the Signer, whpk_ for receivers.
func NewKeyPair() (private, public string) {
	var seed [ed25519.SeedSize]byte
	rand.Read(seed[:])
	k := ed25519.NewKeyFromSeed(seed[:])
	return prefixPrivateKey + base64.StdEncoding.EncodeToString(k),
		prefixPublicKey + base64.StdEncoding.EncodeToString(k.Public().(ed25519.PublicKey))
}
