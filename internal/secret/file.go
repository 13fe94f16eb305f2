package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
)

// maxKeysetBytes bounds the file read at start; a keyset of a hundred keys takes about 20 KiB.
const maxKeysetBytes = 1 << 20

// Open reads the keyset at path, a Tink keyset in JSON, or creates one with a single AES-256-GCM
// key if there is no file. The directory must exist. A file that group or others may access is
// refused. Of several processes that start at once, all get the keyset of the first.
func Open(path string) (*Keyring, error) {
	handle, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, fmt.Errorf("create keyset %s: %w", path, err)
		}
		handle, err = read(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open keyset %s: %w", path, err)
	}
	return newKeyring(handle)
}

func read(path string) (*keyset.Handle, error) {
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
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(text)))
	if err != nil {
		// The parser's error could quote the file.
		return nil, errors.New("not a Tink keyset in JSON: restore the file from its backup")
	}
	return handle, nil
}

// create makes the file appear whole and durable, or not at all. The link fails if the file is
// there already, so a concurrent first start is won once, and an existing keyset is never
// written over.
func create(path string) error {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&text)); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".keyset-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text.Bytes())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
