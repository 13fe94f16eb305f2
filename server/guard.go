package server

import (
	"net/netip"
	"net/url"
	"strings"

	"code.dny.dev/ssrf"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// checkURL refuses a URL that cannot be sent to. Names are resolved, and their addresses guarded, at each connection: what
// is refused here is what can be seen to be wrong already.
func checkURL(guard *ssrf.Guardian, field, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https" {
		return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field,
			"the URL must be absolute, http or https, without user information and fragment")
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	addr, err := netip.ParseAddr(host)
	switch {
	case err == nil:
		addr = addr.Unmap().WithZone("")
	case host == "localhost" || strings.HasSuffix(host, ".localhost"): // always loopback, RFC 6761 section 6.3
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		return nil
	}
	if guard.SafeAddr(addr) != nil {
		return refuseField(kapselv1.ErrorReason_ERROR_REASON_ADDRESS_BLOCKED, field,
			"the address %s is private or special, and not allowed: an operator can allow its range", addr)
	}
	return nil
}
