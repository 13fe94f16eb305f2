package embedpg

import "syscall"

// endWithParent has the kernel send SIGINT, PostgreSQL's fast shutdown, to the child when we are gone.
// It is set after the change of user, which would clear it.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGINT }
