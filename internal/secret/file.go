package secret

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/kapsel-dev/kapsel/internal/durable"
)

// maxKeysetBytes bounds the file read at start; a keyset of a hundred keys takes about 20 KiB.
const maxKeysetBytes = 1 << 20

// Open reads the keyset at path, a Tink keyset in JSON, or creates one with a single AES-256-GCM
// key if there is no file. The directory must exist. A file that group or others may access is
// refused. Of several processes that start at once, all get the keyset of the first.
//
// Here and in the functions below, the keyset is encrypted under kms, a key outside; where kms is
// nil, it is in the clear.
func Open(path string, kms tink.AEAD) (*Keyring, error) {
	text, handle, err := read(path, kms)
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(path, kms); err != nil {
			return nil, fmt.Errorf("create keyset %s: %w", path, err)
		}
		text, handle, err = read(path, kms)
	}
	if err != nil {
		return nil, fmt.Errorf("open keyset %s: %w", path, err)
	}
	first, err := newKeys(handle)
	if err != nil {
		return nil, err
	}
	k := &Keyring{path: path, kms: kms, text: text, readAt: time.Now()}
	k.current.Store(first)
	return k, nil
}

// Decode makes a keyring of a keyset's JSON in base64, as an environment variable or a secret store
// has it. It does not change while the process runs.
func Decode(encoded string, kms tink.AEAD) (*Keyring, error) {
	text, err := base64.StdEncoding.DecodeString(strings.TrimSpace(encoded))
	if err != nil || len(text) > maxKeysetBytes {
		return nil, errors.New("keyset: want the base64 of a Tink keyset in JSON")
	}
	handle, err := parse(text, kms)
	if err != nil {
		return nil, fmt.Errorf("keyset: %w", err)
	}
	only, err := newKeys(handle)
	if err != nil {
		return nil, err
	}
	k := new(Keyring)
	k.current.Store(only)
	return k, nil
}

func read(path string, kms tink.AEAD) (text []byte, handle *keyset.Handle, err error) {
	if text, err = readFile(path); err != nil {
		return nil, nil, err
	}
	handle, err = parse(text, kms)
	return text, handle, err
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat() // of what was opened, so that it cannot be swapped in between
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("mode %04o lets others than its owner in: run chmod 600 %s", mode, path)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxKeysetBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxKeysetBytes {
		return nil, fmt.Errorf("over %d bytes: not a keyset", maxKeysetBytes)
	}
	return text, nil
}

// create makes the file appear whole and durable, or not at all. The link fails if the file is
// there already, so a concurrent first start is won once, and an existing keyset is never
// written over.
func create(path string, kms tink.AEAD) error {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return err
	}
	text, err := format(handle, kms)
	if err != nil {
		return err
	}
	if err := durable.Create(path, text); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
