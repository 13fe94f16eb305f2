package embedpg

import "syscall"

func withoutParentDeath(attr *syscall.SysProcAttr) { attr.Pdeathsig = 0 }
