//go:build unix

package delivery

import (
	"crypto/tls"
	"errors"
	"net"
	"syscall"
)

// silent reports whether nothing can be read from a connection: no end, no error, no stray bytes. It does not wait.
func silent(conn net.Conn) bool {
	if toProxy, ok := conn.(*tls.Conn); ok {
		conn = toProxy.NetConn()
	}
	withFile, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := withFile.SyscallConn()
	if err != nil {
		return false
	}
	var readErr error
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, readErr = syscall.Read(int(fd), b[:])
	})
	return err == nil && (errors.Is(readErr, syscall.EAGAIN) || errors.Is(readErr, syscall.EWOULDBLOCK))
}
