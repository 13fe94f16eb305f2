//go:build !gcpkms

package signer

import (
	"context"

	"github.com/tink-crypto/tink-go/v2/tink"
)

func openGCPKMS(context.Context, string) (Signer, error) { return nil, errNotBuilt }

func openGCPKMSAEAD(context.Context, string) (tink.AEAD, error) { return nil, errNotBuilt }
