//go:build !awskms

package signer

import (
	"context"

	"github.com/tink-crypto/tink-go/v2/tink"
)

func openAWSKMS(context.Context, string) (Signer, error) { return nil, errNotBuilt }

func openAWSKMSAEAD(context.Context, string) (tink.AEAD, error) { return nil, errNotBuilt }
