package witness

import (
	"crypto"
	"crypto/ed25519"
	"fmt"
	"os"
	"path/filepath"
)

// Lock takes a state directory for this process, until the returned function is called or the process ends: two witnesses
// with one key and one state could each cosign another fork.
func Lock(stateDir string) (unlock func() error, err error) {
	path := filepath.Join(stateDir, "lock")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state directory: %w", err)
	}
	if err := lockFile(file); err != nil {
		file.Close()
		return nil, fmt.Errorf("lock state directory: %s is held by another process: %w", path, err)
	}
	return file.Close, nil
}

func publicKey(signer crypto.Signer) (ed25519.PublicKey, error) {
	key, ok := signer.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the witness's key is a %T: want Ed25519", signer.Public())
	}
	return key, nil
}
