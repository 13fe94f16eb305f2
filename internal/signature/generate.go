package signature

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
)

// secretBytes is the length of a new HMAC key: the output size of SHA-256, and within the 24 to
// 64 bytes that Standard Webhooks asks for.
const secretBytes = 32

// NewSecret returns a new random HMAC secret, whsec_ and base64. crypto/rand does not fail: it
// ends the process if the system has no randomness.
func NewSecret() string {
	var raw [secretBytes]byte
	rand.Read(raw[:])
	return PrefixHMACSecret + base64.StdEncoding.EncodeToString(raw[:])
}

// NewKeyPair returns a new Ed25519 key pair: whsk_ for the Signer, whpk_ for receivers.
func NewKeyPair() (private, public string) {
	var seed [ed25519.SeedSize]byte
	rand.Read(seed[:])
	k := ed25519.NewKeyFromSeed(seed[:])
	return PrefixPrivateKey + base64.StdEncoding.EncodeToString(k),
		PrefixPublicKey + base64.StdEncoding.EncodeToString(k.Public().(ed25519.PublicKey))
}

// PublicKey returns the public half (whpk_) of a private key (whsk_: seed, then public key), and "" of a secret of another
// kind.
func PublicKey(secret []byte) (string, error) {
	text, found := bytes.CutPrefix(secret, []byte(PrefixPrivateKey))
	if !found {
		return "", nil
	}
	raw, err := base64.StdEncoding.DecodeString(string(text))
	if err != nil || len(raw) != ed25519.PrivateKeySize {
		return "", errors.New("the secret is not an Ed25519 private key")
	}
	return PrefixPublicKey + base64.StdEncoding.EncodeToString(raw[ed25519.SeedSize:]), nil
}
