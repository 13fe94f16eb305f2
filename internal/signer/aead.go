package signer

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tink-crypto/tink-go/v2/tink"
)

// aeadSchemes are the kinds of keys that encrypt, built in or not. The name of each is its build tag.
var aeadSchemes = map[string]func(ctx context.Context, uri string) (tink.AEAD, error){
	"awskms": openAWSKMSAEAD,
	"gcpkms": openGCPKMSAEAD,
}

// OpenAEAD opens the symmetric key that a URL names, with which little is encrypted at a time: AWS takes 4 KiB. No question is asked
// before the first use.
//
//	awskms:///alias/kapsel-secrets?region=eu-central-1
//	gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K
func OpenAEAD(ctx context.Context, url string) (tink.AEAD, error) {
	name, _, _ := strings.Cut(url, ":")
	open, known := aeadSchemes[name]
	if !known {
		return nil, errors.New("open key in a KMS: a URL of it begins with awskms or gcpkms, and a colon")
	}
	key, err := open(ctx, url)
	if errors.Is(err, errNotBuilt) {
		return nil, fmt.Errorf("open %s key: %w: build kapsel with -tags %s", name, err, name)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s key: %w", name, err)
	}
	return key, nil
}
