package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/kapsel-dev/kapsel/internal/durable"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/internal/signer"
	"github.com/kapsel-dev/kapsel/internal/tlog"
)

// Names of the files in a state directory that all nodes of a service share.
const (
	logKeyFile  = "log.key"
	secretsFile = "secrets.keyset"
)

// maxKeyFileBytes bounds a key file: the largest is a keyset of many keys, some 20 KiB.
const maxKeyFileBytes = 1 << 20

// InitState makes the shared files in a directory, leaves alone those that are there, and returns their paths. secretsKMS is as in Config.
func InitState(ctx context.Context, dir, secretsKMS string) ([]string, error) {
	kms, err := SecretsKMS(ctx, secretsKMS)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	paths := []string{filepath.Join(dir, logKeyFile), filepath.Join(dir, secretsFile)}
	if _, err := tlog.OpenKeyFile(paths[0]); err != nil {
		return nil, err
	}
	if _, err := secret.Open(paths[1], kms); err != nil {
		return nil, err
	}
	return paths, nil
}

// SecretsKMS opens the key that encrypts the keyset of secrets; nil for "".
func SecretsKMS(ctx context.Context, url string) (tink.AEAD, error) {
	if url == "" {
		return nil, nil
	}
	return signer.OpenAEAD(ctx, url)
}

// openKeyset opens the keyset of secrets where the configuration has it.
func openKeyset(ctx context.Context, c Config) (*secret.Keyring, error) {
	kms, err := SecretsKMS(ctx, c.SecretsKMS)
	if err != nil {
		return nil, err
	}
	if c.SecretsKeyset != "" {
		return secret.Decode(c.SecretsKeyset, kms)
	}
	return secret.Open(filepath.Join(c.StateDir, secretsFile), kms)
}

// InstallState copies the shared files into a node's state directory, with the mode that they need, and the log's later keys
// with them. A keyset that differs from the one that is there replaces it; a log key that differs is refused. With keysetOnly
// no key of the log is copied, nor needed.
func InstallState(from, dir string, keysetOnly bool) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	names := []string{secretsFile}
	if !keysetOnly {
		later, err := filepath.Glob(filepath.Join(from, "log.*.key"))
		if err != nil {
			return fmt.Errorf("look for log keys: %w", err)
		}
		names = append(names, logKeyFile)
		for _, path := range later {
			names = append(names, filepath.Base(path))
		}
	}
	for _, name := range names {
		if err := installKeyFile(filepath.Join(from, name), filepath.Join(dir, name), name == secretsFile); err != nil {
			return err
		}
	}
	return nil
}

// installKeyFile copies a key file so that it is there whole or not at all.
func installKeyFile(from, to string, replace bool) error {
	info, err := os.Stat(from)
	if err != nil {
		return fmt.Errorf("read key file: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFileBytes {
		return fmt.Errorf("read key file: %s is no key file: want a regular file of at most %d bytes", from, maxKeyFileBytes)
	}
	wanted, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("read key file: %w", err)
	}
	present, err := os.ReadFile(to)
	switch {
	case err == nil && bytes.Equal(present, wanted):
		return nil
	case err == nil && !replace:
		return fmt.Errorf("%s is another key than %s: a log keeps its key; restore the file that belongs to this log", from, to)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("read key file: %w", err)
	}
	if err := durable.Replace(to, wanted); err != nil {
		return fmt.Errorf("install key file: %w", err)
	}
	return nil
}
