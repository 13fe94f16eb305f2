//go:build !linux

package embedpg

import "syscall"

func withoutParentDeath(*syscall.SysProcAttr) {}
