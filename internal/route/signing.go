package route

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/protobuf/encoding/protojson"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/signature"
)

var errDeleting = errors.New("its tenant is being deleted")

var errUnreadableSecret = errors.New("a signing secret cannot be decrypted: restore the keyset that it was encrypted with, or rotate the secret with an overlap of 0s")

// compileSigning makes the signer of a destination by its stored signing, and the names of its headers. Whatever is not
// understood is an error, here more than elsewhere: a destination must not be sent to with less than was asked for.
func compileSigning(stored []byte, secrets [][]byte) (*signature.Signer, SignatureHeaders, error) {
	var signing kapselv1.Signing
	if err := protojson.Unmarshal(stored, &signing); err != nil {
		return nil, SignatureHeaders{}, fmt.Errorf("stored Signing: %w", err)
	}
	signer, err := signature.NewSigner(secrets)
	if err != nil {
		return nil, SignatureHeaders{}, err
	}
	// Secrets of the scheme before may sign on for a while; the newest one is of the scheme that is set.
	asymmetric := bytes.HasPrefix(secrets[0], []byte(signature.PrefixPrivateKey))
	switch signing.Scheme {
	case kapselv1.SigningScheme_SIGNING_SCHEME_UNSPECIFIED, kapselv1.SigningScheme_SIGNING_SCHEME_V1:
		if asymmetric {
			return nil, SignatureHeaders{}, errors.New("signing scheme V1 is set, and the newest secret is a key pair: rotate the secret")
		}
	case kapselv1.SigningScheme_SIGNING_SCHEME_V1A:
		if !asymmetric {
			return nil, SignatureHeaders{}, errors.New("signing scheme V1A is set, and the newest secret is no key pair: rotate the secret")
		}
	default:
		return nil, SignatureHeaders{}, fmt.Errorf("signing scheme %d is unknown", signing.Scheme)
	}
	return signer, SignatureHeaders{
		ID:        http.CanonicalHeaderKey(cmp.Or(signing.IdHeader, StandardHeaders.ID)),
		Timestamp: http.CanonicalHeaderKey(cmp.Or(signing.TimestampHeader, StandardHeaders.Timestamp)),
		Signature: http.CanonicalHeaderKey(cmp.Or(signing.SignatureHeader, StandardHeaders.Signature)),
	}, nil
}
