package store

import (
	"net"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// A host that is gone does not say so. Its connections must not be waited on for as long as the system would.
func TestServersMayNotBeSilentForLong(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	config, err := pgx.ParseConfig("postgres://kapsel@" + listener.Addr().String() + "/kapsel?connect_timeout=3")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := prepareSession(config, nil); err != nil {
		t.Fatal(err)
	}
	conn, err := config.DialFunc(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var limit int
	var limitErr error
	if err := raw.Control(func(fd uintptr) {
		limit, limitErr = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	}); err != nil {
		t.Fatal(err)
	}
	if limitErr != nil || limit <= 0 || limit > 30_000 {
		t.Errorf("silent for %d ms (%v): want half a minute at most", limit, limitErr)
	}
}
