// Package durable writes and reads the small files beside the database that must be whole and on disk: keys, marks, states.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// privateMode is the mode of all files of this package: for their owner alone.
const privateMode fs.FileMode = 0o600

// Create writes a file that must not exist yet. It appears whole, on disk and with mode 0600, or not at all;
// fs.ErrExist when something else made it first.
func Create(path string, data []byte) error {
	temporary, err := writeTemporary(path, data)
	if err != nil {
		return err
	}
	defer os.Remove(temporary)
	if err := os.Link(temporary, path); err != nil { // unlike a rename, a link does not replace
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

// Replace writes a file in the place of the one that may be there. After a crash either the old or the new content is
// there; after a return the new one is on disk.
func Replace(path string, data []byte) error {
	temporary, err := writeTemporary(path, data)
	if err != nil {
		return err
	}
	if err := os.Rename(temporary, path); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return syncDirectory(filepath.Dir(path))
}

// writeTemporary writes data to a new file beside path and returns its name. CreateTemp makes it with mode 0600.
func writeTemporary(path string, data []byte) (name string, err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return "", err
	}
	_, writeErr := file.Write(data)
	if err := errors.Join(writeErr, file.Sync(), file.Close()); err != nil {
		return "", errors.Join(err, os.Remove(file.Name()))
	}
	return file.Name(), nil
}

// syncDirectory puts a directory's entries on disk, so that a created or renamed file is still there after a power cut.
func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}

// ReadPrivate reads a file that nobody but its owner may read or write.
func ReadPrivate(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if loose := info.Mode().Perm() &^ privateMode; loose != 0 {
		return nil, fmt.Errorf("%s has mode %04o, so that others may use it: run chmod 600 on it, and if others could have read "+
			"it, start a new key", path, info.Mode().Perm())
	}
	return os.ReadFile(path)
}
