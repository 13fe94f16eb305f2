package signature

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// Prefixes by which Standard Webhooks tells the kinds of secrets apart.
const (
	PrefixHMACSecret = "whsec_"
	PrefixPrivateKey = "whsk_"
	PrefixPublicKey  = "whpk_"
)

// Prefixes of the items of a signature header.
const (
	prefixHMACItem    = "v1,"
	prefixEd25519Item = "v1a,"
)

// prefixVerifyToken tells a handshake's token from a signing secret.
const prefixVerifyToken = "verify_token:"

// key is what a secret yields. Exactly one field is set.
type key struct {
	mac          []byte
	private      ed25519.PrivateKey
	public       ed25519.PublicKey
	ecdsaPrivate *ecdsa.PrivateKey
	ecdsaPublic  *ecdsa.PublicKey
	token        []byte // as it is sent
	verifyToken  []byte // of a handshake
}

// isPrivate says that the key is the sender's.
func (k key) isPrivate() bool { return k.private != nil || k.ecdsaPrivate != nil }

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
	case KeyHex:
		raw := make([]byte, hex.DecodedLen(len(secret)))
		if _, err := hex.Decode(raw, secret); err != nil || len(raw) == 0 {
			return key{}, errors.New("is not hex: paste it exactly as the source shows it")
		}
		return key{mac: raw}, nil
	case KeyEd25519:
		return parseEd25519Key(secret)
	case KeyECDSA:
		return parseECDSAKey(secret)
	case KeyBasicAuth:
		if user, _, ok := bytes.Cut(secret, []byte(":")); !ok || len(user) == 0 {
			return key{}, errors.New("is not of the form user:password")
		}
		return key{token: base64.StdEncoding.AppendEncode(nil, secret)}, nil
	case KeyVerifyToken:
		token, ok := bytes.CutPrefix(secret, []byte(prefixVerifyToken))
		switch {
		case !ok:
			return key{mac: bytes.Clone(secret)}, nil
		case len(token) == 0:
			return key{}, fmt.Errorf("has nothing after %s", prefixVerifyToken)
		}
		return key{verifyToken: bytes.Clone(token)}, nil
	}
	panic(fmt.Sprintf("signature: key form %d is unknown", form))
}

func parseStandardWebhooksKey(secret []byte) (key, error) {
	if text, ok := bytes.CutPrefix(secret, []byte(PrefixPrivateKey)); ok {
		raw, err := decodeSecret(text)
		if err != nil {
			return key{}, err
		}
		return newPrivateKey(raw)
	}
	if text, ok := bytes.CutPrefix(secret, []byte(PrefixPublicKey)); ok {
		raw, err := decodeSecret(text)
		if err != nil {
			return key{}, err
		}
		return newPublicKey(raw)
	}
	// Short keys pass: the specification asks senders for 24 bytes, and some use less.
	raw, err := decodeSecret(bytes.TrimPrefix(secret, []byte(PrefixHMACSecret)))
	if err != nil {
		return key{}, err
	}
	return key{mac: raw}, nil
}

// parseEd25519Key takes hex: a public key, or a private one for the sender.
func parseEd25519Key(secret []byte) (key, error) {
	raw := make([]byte, hex.DecodedLen(len(secret)))
	if _, err := hex.Decode(raw, secret); err != nil {
		return key{}, errors.New("is not an Ed25519 public key in hex: paste it exactly as the source shows it")
	}
	if len(raw) == ed25519.PrivateKeySize {
		return newPrivateKey(raw)
	}
	return newPublicKey(raw)
}

func newPrivateKey(raw []byte) (key, error) {
	if len(raw) != ed25519.PrivateKeySize {
		return key{}, fmt.Errorf("is an Ed25519 private key of %d bytes, want %d: seed, then public key", len(raw), ed25519.PrivateKeySize)
	}
	private := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
	if !bytes.Equal(private, raw) {
		return key{}, errors.New("is an Ed25519 private key whose public half does not belong to its seed")
	}
	return key{private: private}, nil
}

func newPublicKey(raw []byte) (key, error) {
	if len(raw) != ed25519.PublicKeySize {
		return key{}, fmt.Errorf("is an Ed25519 public key of %d bytes, want %d", len(raw), ed25519.PublicKeySize)
	}
	return key{public: raw}, nil
}

// parseECDSAKey takes PEM or the base64 of DER: a public key, or a private one (PKCS #8) for the sender.
func parseECDSAKey(secret []byte) (key, error) {
	der := []byte(nil)
	if block, _ := pem.Decode(secret); block != nil {
		der = block.Bytes
	} else if raw, err := base64.StdEncoding.AppendDecode(nil, bytes.TrimSpace(secret)); err == nil {
		der = raw
	}
	if public, err := x509.ParsePKIXPublicKey(der); err == nil {
		if k, ok := public.(*ecdsa.PublicKey); ok && k.Curve == elliptic.P256() {
			return key{ecdsaPublic: k}, nil
		}
	} else if private, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		if k, ok := private.(*ecdsa.PrivateKey); ok && k.Curve == elliptic.P256() {
			return key{ecdsaPrivate: k}, nil
		}
	}
	return key{}, errors.New("is not an ECDSA P-256 public key in PEM or base64 DER: paste it exactly as the source shows it")
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

// tokenDigest lets tokens be compared in constant time whatever their lengths.
type tokenDigest [sha256.Size]byte

func digestToken(token []byte) tokenDigest { return sha256.Sum256(token) }
