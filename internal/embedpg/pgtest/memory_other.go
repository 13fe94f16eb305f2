//go:build !linux

package pgtest

import "os"

// memoryDirectory returns the directory for temporary files: only Linux has one in memory everywhere.
func memoryDirectory() string { return os.TempDir() }
