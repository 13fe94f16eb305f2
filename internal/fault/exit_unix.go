//go:build unix

package fault

import "syscall"

// exit ends the process as kill -9 does: nothing deferred runs, nothing is flushed.
func exit() {
	syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
	select {} // until it arrives
}
