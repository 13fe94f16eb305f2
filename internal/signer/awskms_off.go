//go:build !awskms

package signer

import "context"

func openAWSKMS(context.Context, string) (Signer, error) { return nil, errNotBuilt }
