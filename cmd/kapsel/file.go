package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// openFile opens a file to read, or standard input for "-". What cannot be read is a wrong call.
func openFile(stdin io.Reader, path string) (io.ReadCloser, error) {
	if path == "-" {
		return io.NopCloser(stdin), nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, usageError(err)
	}
	if info, err := file.Stat(); err == nil && info.IsDir() {
		file.Close()
		return nil, usageError(fmt.Errorf("%s is a directory: name a file", path))
	}
	return file, nil
}

// readBounded reads a file, or standard input for "-", of at most that many bytes.
func readBounded(stdin io.Reader, path string, maxBytes int64) ([]byte, error) {
	source, err := openFile(stdin, path)
	if err != nil {
		return nil, err
	}
	defer source.Close()
	data, err := io.ReadAll(io.LimitReader(source, maxBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(data)) > maxBytes {
		return nil, usageError(fmt.Errorf("%s is longer than %d bytes", path, maxBytes))
	}
	return data, nil
}

// writeWhole has a file filled and puts it in its place when it is whole, so that a file of its name is never one that was cut
// short. What is there and is no plain file (a pipe, a device, a link) is written to: it must not be replaced.
func writeWhole(path string, mode fs.FileMode, fill func(io.Writer) error) error {
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			return err
		}
		return errors.Join(fill(file), file.Close())
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	defer file.Close()
	if err := fill(file); err != nil {
		return err
	}
	if err := errors.Join(file.Chmod(mode), file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
