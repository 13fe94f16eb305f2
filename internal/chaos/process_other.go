//go:build !linux

package chaos

import "syscall"

// endWithParent can do nothing here: cleanups end the child unless the test process is killed.
func endWithParent() *syscall.SysProcAttr { return nil }
