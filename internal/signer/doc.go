// Package signer opens Ed25519 keys that do not live in a file: in a hardware module behind PKCS#11, or in a cloud's key
// service. A key is chosen by URL, and is a crypto.Signer, which is all that the log knows of it. Beside those, it opens the
// symmetric keys of clouds ([OpenAEAD]), which encrypt the keyset of secrets.
//
// What needs cgo or a cloud's library is behind build tags (pkcs11, awskms, gcpkms), so that the ordinary binary is small
// and static. A URL whose kind is not built in is an error that says how to get it.
//
// No error of this package holds a PIN, a token or the query of a URL.
package signer

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Signer is a key that can be asked for signatures: of messages, not of digests (Ed25519, crypto.Hash(0)). Safe for
// concurrent use. Close gives back what it holds; the key stays where it is.
type Signer interface {
	crypto.Signer
	io.Closer
}

// errNotBuilt is what the opener of a kind returns that is not built in.
var errNotBuilt = errors.New("this binary cannot use such keys")

// Schemes are the kinds of keys, built in or not.
var schemes = map[string]struct {
	open func(ctx context.Context, uri string) (Signer, error)
	tag  string // build tag
}{
	"pkcs11": {openPKCS11, "pkcs11"},
	"awskms": {openAWSKMS, "awskms"},
	"gcpkms": {openGCPKMS, "gcpkms"},
}

// Is reports whether text is the URL of a key outside a file.
func Is(text string) bool {
	scheme, _, found := strings.Cut(text, ":")
	_, known := schemes[scheme]
	return found && known
}

// Open opens the key that a URL names:
//
//	pkcs11:token=kapsel;object=log?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=/etc/kapsel/pin  (RFC 7512)
//	awskms:///alias/kapsel-log?region=eu-central-1
//	gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1
func Open(ctx context.Context, url string) (Signer, error) {
	name, _, _ := strings.Cut(url, ":")
	scheme, known := schemes[name]
	if !known {
		return nil, errors.New("open key: a URL of it begins with pkcs11, awskms or gcpkms, and a colon")
	}
	s, err := scheme.open(ctx, url)
	if errors.Is(err, errNotBuilt) {
		return nil, fmt.Errorf("open %s key: %w: build kapsel with -tags %s", name, err, scheme.tag)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s key: %w", name, err)
	}
	return s, nil
}
