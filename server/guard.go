package server

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"code.dny.dev/ssrf"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// checkURL refuses a URL that cannot be sent to. Names are resolved, and their addresses guarded, at each connection: what
// is refused here is what can be seen to be wrong already. A host is taken in one spelling only: what one reader takes for a
// name another one takes for an address.
func checkURL(guard *ssrf.Guardian, field, text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Scheme != "http" && u.Scheme != "https" {
		return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field,
			"the URL must be absolute, http or https, without user information and fragment")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field, "the port must be 1 to 65535")
		}
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	addr, err := netip.ParseAddr(host)
	switch {
	case err == nil && addr.Zone() != "":
		return refuseField(kapselv1.ErrorReason_ERROR_REASON_ADDRESS_BLOCKED, field, "an address with a zone is a link's own")
	case err == nil:
		addr = addr.Unmap()
	case !isHostName(host):
		return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, field,
			"the host must be a name of letters, digits and hyphens (xn--… for others), an IPv4 address of four decimal numbers, or an IPv6 address in brackets")
	case host == "localhost" || strings.HasSuffix(host, ".localhost"): // always loopback, RFC 6761 section 6.3
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	default:
		return nil
	}
	if guard.SafeAddr(addr) != nil {
		return addressBlocked(field, addr)
	}
	return nil
}

func addressBlocked(field string, addr netip.Addr) error {
	return refuseField(kapselv1.ErrorReason_ERROR_REASON_ADDRESS_BLOCKED, field,
		"the address %s is private or special, and not allowed: an operator can allow its range", addr)
}

// isHostName reports whether host is a name by RFC 1123 section 2.1 (underscores are found in practice), and none that is
// read as an IPv4 address: one whose last label is a number (WHATWG URL, "ends in a number").
func isHostName(host string) bool {
	if len(host) > 253 {
		return false
	}
	label := ""
	for label = range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return false
			}
		}
	}
	digits := strings.TrimPrefix(label, "0x")
	hexadecimal := digits != label && strings.Trim(digits, "0123456789abcdef") == ""
	return !hexadecimal && strings.Trim(label, "0123456789") != ""
}

// lookupTimeout bounds how long the making of a destination waits for a name server.
const lookupTimeout = time.Second

// checkNames refuses URLs whose names lead to blocked addresses alone, as far as that can be seen now. A name that does not
// resolve is taken: it may do so later, and is checked at each connection. It waits for a name server, so no transaction may
// be open.
func (a *api) checkNames(ctx context.Context, d *kapselv1.Destination) error {
	for field, text := range map[string]string{
		"destination.url": d.GetUrl(), "destination.client_credentials.token_url": d.GetClientCredentials().GetTokenUrl(),
	} {
		u, err := url.Parse(text)
		if err != nil || text == "" || !isHostName(strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")) {
			continue // checkURL says what is wrong
		}
		resolver := a.Resolver
		if resolver == nil {
			resolver = net.DefaultResolver
		}
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		found, err := resolver.LookupNetIP(ctx, "ip", u.Hostname())
		cancel()
		if err != nil {
			continue
		}
		blocked := 0
		for _, addr := range found {
			if a.guard.SafeAddr(addr.Unmap().WithZone("")) != nil {
				blocked++
			}
		}
		if blocked > 0 && blocked == len(found) {
			return addressBlocked(field, found[0])
		}
	}
	return nil
}
