//go:build !pkcs11 || !cgo

package signer

import "context"

func openPKCS11(_ context.Context, uri string) (Signer, error) {
	if _, err := parsePKCS11URI(uri); err != nil {
		return nil, err
	}
	return nil, errNotBuilt
}
