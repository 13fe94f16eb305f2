package delivery

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"time"

	"code.dny.dev/ssrf"
)

// maxProxyAnswerBytes bounds what an egress proxy may answer to CONNECT.
const maxProxyAnswerBytes = 16 << 10

// dialer connects to destinations. Every address is checked after the name was resolved and before anything is sent, also
// when the connection goes through an egress proxy: the proxy is given the address that was checked, never the name.
type dialer struct {
	guard    *ssrf.Guardian
	resolver *net.Resolver // nil: the system's
	proxy    *url.URL      // nil: there is none
}

// cloudHosts are public addresses at which a cloud serves its virtual machines, theirs alone: Azure's WireServer.
var cloudHosts = []netip.Prefix{netip.MustParsePrefix("168.63.129.16/32")}

// NewGuard refuses private, link-local, metadata and other special addresses, but for those that are allowed.
func NewGuard(allowed []netip.Prefix) *ssrf.Guardian {
	var v4, v6 []netip.Prefix
	for _, prefix := range allowed {
		if prefix.Addr().Is4() {
			v4 = append(v4, prefix)
		} else {
			v6 = append(v6, prefix)
		}
	}
	return ssrf.New(ssrf.WithAnyPort(), ssrf.WithDeniedV4Prefixes(cloudHosts...), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
}

func (d *dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if d.proxy != nil {
		return d.dialThroughProxy(ctx, address)
	}
	direct := net.Dialer{Control: d.guard.Safe, Resolver: d.resolver}
	return direct.DialContext(ctx, network, address)
}

// dialThroughProxy tries the addresses of the destination in turn. The error is the first one's, as in net.Dialer.
func (d *dialer) dialThroughProxy(ctx context.Context, address string) (net.Conn, error) {
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port of %s: %w", address, err)
	}
	resolver := d.resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	addresses, err := resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var first error
	for _, ip := range addresses {
		target := netip.AddrPortFrom(ip.Unmap().WithZone(""), uint16(port))
		err := d.guard.SafeAddrPort(target)
		if err == nil {
			var conn net.Conn
			if conn, err = d.tunnel(ctx, target); err == nil {
				return conn, nil
			}
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	return nil, first
}

// proxyError is a failure of the egress proxy, not of the destination.
type proxyError struct{ err error }

func (e *proxyError) Error() string { return "egress proxy: " + e.err.Error() }
func (e *proxyError) Unwrap() error { return e.err }

// tunnel has the proxy connect to target. The proxy's own address is the operator's word, and not checked.
func (d *dialer) tunnel(ctx context.Context, target netip.AddrPort) (net.Conn, error) {
	conn, err := d.dialProxy(ctx)
	if err != nil {
		return nil, &proxyError{err}
	}
	if deadline, limited := ctx.Deadline(); limited {
		err = conn.SetDeadline(deadline)
	}
	if err == nil {
		err = connect(conn, target, d.proxy.User)
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		conn.Close()
		return nil, &proxyError{err}
	}
	return conn, nil
}

func (d *dialer) dialProxy(ctx context.Context) (net.Conn, error) {
	port := d.proxy.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[d.proxy.Scheme]
	}
	address := net.JoinHostPort(d.proxy.Hostname(), port)
	if d.proxy.Scheme == "https" {
		secure := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: d.proxy.Hostname()}}
		return secure.DialContext(ctx, "tcp", address)
	}
	var plain net.Dialer
	return plain.DialContext(ctx, "tcp", address)
}

// connect asks for a tunnel (RFC 9110 section 9.3.6). A destination of HTTP or TLS says nothing unasked, so that no byte
// may follow the answer.
func connect(conn net.Conn, target netip.AddrPort, user *url.Userinfo) error {
	request := "CONNECT " + target.String() + " HTTP/1.1\r\nHost: " + target.String() + "\r\n"
	if user != nil {
		password, _ := user.Password()
		request += "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)) + "\r\n"
	}
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		return err
	}
	in := bufio.NewReader(io.LimitReader(conn, maxProxyAnswerBytes))
	response, err := http.ReadResponse(in, &http.Request{Method: http.MethodConnect})
	if err != nil {
		return err
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode < 200 || response.StatusCode > 299:
		return fmt.Errorf("it answered %d to CONNECT %s", response.StatusCode, target)
	case in.Buffered() > 0:
		return errors.New("it sent more than its answer to CONNECT")
	}
	return nil
}
