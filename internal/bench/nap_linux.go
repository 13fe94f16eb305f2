package bench

import (
	"context"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// From linux/time.h and linux/timerfd.h.
const (
	clockMonotonic = 1
	timerCloexec   = syscall.O_CLOEXEC
	timerNonblock  = syscall.O_NONBLOCK
)

// napper sleeps with the kernel's timer resolution. An idle Go program sleeps in whole
// milliseconds, the unit of epoll_wait, and at 500 webhooks a second that would add more to
// each measured latency than the server does. A timer descriptor wakes the poller itself.
type napper struct {
	timer *os.File
	raw   syscall.RawConn
	ctx   context.Context
	untie func() bool
	ticks [8]byte
}

// newNapper makes a napper whose sleeps end early, with an error, when ctx ends.
func newNapper(ctx context.Context) (*napper, error) {
	fd, _, errno := syscall.Syscall(syscall.SYS_TIMERFD_CREATE, clockMonotonic, timerCloexec|timerNonblock, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("timerfd_create", errno)
	}
	timer := os.NewFile(fd, "timerfd")
	raw, err := timer.SyscallConn()
	if err != nil {
		timer.Close()
		return nil, err
	}
	return &napper{
		timer: timer, raw: raw, ctx: ctx,
		untie: context.AfterFunc(ctx, func() { timer.SetReadDeadline(time.Unix(1, 0)) }),
	}, nil
}

func (n *napper) close() {
	n.untie()
	n.timer.Close()
}

// sleep waits for d, which must be positive.
func (n *napper) sleep(d time.Duration) error {
	var errno syscall.Errno
	err := n.raw.Control(func(fd uintptr) {
		// struct itimerspec: no interval, one expiry d from now.
		spec := [2]syscall.Timespec{{}, syscall.NsecToTimespec(int64(d))}
		_, _, errno = syscall.Syscall6(syscall.SYS_TIMERFD_SETTIME, fd, 0, uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	})
	if err != nil {
		return err
	}
	if errno != 0 {
		return os.NewSyscallError("timerfd_settime", errno)
	}
	if _, err := n.timer.Read(n.ticks[:]); err != nil {
		if n.ctx.Err() != nil {
			return n.ctx.Err()
		}
		return err
	}
	return nil
}
