//go:build darwin || dragonfly || freebsd || netbsd || openbsd

package embedpg

import "syscall"

// endWithParent does nothing where the kernel offers nothing: the next Start ends what was left.
func endWithParent(*syscall.SysProcAttr) {}
