//go:build !gcpkms

package signer

import "context"

func openGCPKMS(context.Context, string) (Signer, error) { return nil, errNotBuilt }
