//go:build awskms || gcpkms

package signer

import (
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"
)

// cloudTimeout bounds one question to a key service, with the library's own repetitions.
const cloudTimeout = 10 * time.Second

// remote is a key that is asked over the network for each signature.
type remote struct {
	kind   string
	public ed25519.PublicKey
	sign   func(message []byte) ([]byte, error)
}

// newRemote takes a public key as its service gives it, a SubjectPublicKeyInfo in DER.
func newRemote(kind string, der []byte, sign func(message []byte) ([]byte, error)) (*remote, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errors.New("the service's public key cannot be read")
	}
	public, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the key is a %T: want Ed25519", parsed)
	}
	return &remote{kind, public, sign}, nil
}

func (r *remote) Public() crypto.PublicKey { return r.public }

// Sign signs a message, and checks what came back.
func (r *remote) Sign(_ io.Reader, message []byte, options crypto.SignerOpts) ([]byte, error) {
	if options.HashFunc() != crypto.Hash(0) {
		return nil, fmt.Errorf("sign by %s: Ed25519 signs messages, not digests", r.kind)
	}
	signature, err := r.sign(message)
	if err != nil {
		return nil, fmt.Errorf("sign by %s: %w", r.kind, err)
	}
	if !ed25519.Verify(r.public, message, signature) {
		return nil, fmt.Errorf("sign by %s: the signature does not verify", r.kind)
	}
	return signature, nil
}

// Close does nothing: connections end by themselves.
func (r *remote) Close() error { return nil }

func (r *remote) String() string { return fmt.Sprintf("%s key %x", r.kind, []byte(r.public)) }

// Format makes every verb of package fmt print that.
func (r *remote) Format(f fmt.State, _ rune) { io.WriteString(f, r.String()) }
