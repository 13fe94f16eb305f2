package pgtest

import (
	"os"
	"syscall"
)

// tmpfsMagic is TMPFS_MAGIC of linux/magic.h.
const tmpfsMagic = 0x01021994

// memoryDirectory returns a directory whose files are in memory, if there is one with room.
func memoryDirectory() string {
	const dir = "/dev/shm"
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || int64(fs.Type) != tmpfsMagic ||
		fs.Bavail*uint64(fs.Bsize) < minMemoryBytes {
		return os.TempDir()
	}
	return dir
}
