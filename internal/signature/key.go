package signature

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
)

// Prefixes by which Standard Webhooks tells the kinds of secrets apart, and the item prefixes
// of the signatures they make.
const (
	prefixHMACSecret = "whsec_"
	prefixPrivateKey = "whsk_"
	prefixPublicKey  = "whpk_"

	prefixHMACItem    = "v1,"
	prefixEd25519Item = "v1a,"
)

// key is what a secret yields. Exactly one field is set.
type key struct {
	mac     []byte
	private ed25519.PrivateKey
	public  ed25519.PublicKey
}

var errEmptySecret = errors.New("is empty")

// parseKey derives a key. Its errors read on from "secret N" and never quote the secret.
func parseKey(form KeyForm, secret []byte) (key, error) {
	if len(secret) == 0 {
		return key{}, errEmptySecret
	}
	switch form {
	case KeyRaw:
		return key{mac: bytes.Clone(secret)}, nil
	case KeyStandardWebhooks:
		return parseStandardWebhooksKey(secret)
	}
	panic(fmt.Sprintf("signature: key form %d is unknown", form))
}

func parseStandardWebhooksKey(secret []byte) (key, error) {
	if text, ok := bytes.CutPrefix(secret, []byte(prefixPrivateKey)); ok {
		raw, err := decodeSecret(text)
		if err != nil {
			return key{}, err
		}
		if len(raw) != ed25519.PrivateKeySize {
			return key{}, fmt.Errorf("is an Ed25519 private key of %d bytes, want %d: seed, then public key", len(raw), ed25519.PrivateKeySize)
		}
		private := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
		if !bytes.Equal(private, raw) {
			return key{}, errors.New("is an Ed25519 private key whose public half does not belong to its seed")
		}
		return key{private: private}, nil
	}
	if text, ok := bytes.CutPrefix(secret, []byte(prefixPublicKey)); ok {
		raw, err := decodeSecret(text)
		if err != nil {
			return key{}, err
		}
		if len(raw) != ed25519.PublicKeySize {
			return key{}, fmt.Errorf("is an Ed25519 public key of %d bytes, want %d", len(raw), ed25519.PublicKeySize)
		}
		return key{public: raw}, nil
	}
	// Short keys pass: the specification asks senders for 24 bytes, and some use less.
	raw, err := decodeSecret(bytes.TrimPrefix(secret, []byte(prefixHMACSecret)))
	if err != nil {
		return key{}, err
	}
	return key{mac: raw}, nil
}

// decodeSecret does not pass on the decoder's error: it would tell where in the secret it stopped.
func decodeSecret(text []byte) ([]byte, error) {
	if len(text) == 0 {
		return nil, errEmptySecret
	}
	raw, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil || len(raw) == 0 {
		return nil, errors.New("is not padded standard base64 after its prefix: paste it exactly as the source shows it")
	}
	return raw, nil
}
