package store

import (
	"context"
	"net"
	"strings"
	"syscall"
	"time"
)

// silenceLimit is how long a server may leave what was sent to it without acknowledgement, before its connections are broken.
// When its host is gone, nobody says so, and the system would try for a quarter of an hour: claims, routes and all else that
// waits for an answer would stand still for as long, though another server had taken over.
const silenceLimit = 15 * time.Second

// dial connects to a server whose silence ends the connection.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Control: func(network, _ string, conn syscall.RawConn) error {
		if !strings.HasPrefix(network, "tcp") {
			return nil
		}
		var limitErr error
		if err := conn.Control(func(fd uintptr) { limitErr = limitSilence(fd, silenceLimit) }); err != nil {
			return err
		}
		return limitErr
	}}
	return dialer.DialContext(ctx, network, address)
}
