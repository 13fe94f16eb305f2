//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package embedpg

import (
	"os"
	"syscall"
)

func supported() error { return nil }

// tryLock locks f, without waiting, until it is closed. Children do not inherit the lock.
func tryLock(f *os.File) error {
	return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}

// attributes puts a child into a process group of its own, so that the Ctrl-C of a terminal reaches
// only us and we decide the order of ending, and runs it as acct.
func attributes(acct *account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	endWithParent(attr)
	if acct != nil {
		attr.Credential = &syscall.Credential{Uid: uint32(acct.uid), Gid: uint32(acct.gid)}
	}
	return attr
}
