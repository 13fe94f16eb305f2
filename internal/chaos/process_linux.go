package chaos

import "syscall"

// endWithParent has the kernel kill the child when the test process is gone, for example after its time limit.
func endWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
