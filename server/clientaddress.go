package server

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// ForwardedHeader is the header in which proxies say whom they speak for. One is believed, never both: a proxy passes on
// the one that it does not write itself as its client sent it.
type ForwardedHeader string

// The headers that can be believed.
const (
	XForwardedFor ForwardedHeader = "X-Forwarded-For"
	Forwarded     ForwardedHeader = "Forwarded" // RFC 7239
)

// ParseForwardedHeader reads the name of one of them, in any case.
func ParseForwardedHeader(name string) (ForwardedHeader, error) {
	for _, known := range []ForwardedHeader{XForwardedFor, Forwarded} {
		if strings.EqualFold(name, string(known)) {
			return known, nil
		}
	}
	return "", fmt.Errorf("%q: want %s or %s", name, XForwardedFor, Forwarded)
}

// maxForwardedHops bounds how many proxies are followed back.
const maxForwardedHops = 32

// behindProxies makes RemoteAddr the client's address where the peer is a trusted proxy. From anyone else the headers mean
// nothing. All that comes after, intake's source address and limits by address among it, reads RemoteAddr alone.
func behindProxies(next http.Handler, trusted []netip.Prefix, header ForwardedHeader) http.Handler {
	if len(trusted) == 0 {
		return next
	}
	if header == "" {
		header = XForwardedFor
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = clientAddress(r.RemoteAddr, r.Header[string(header)], trusted, header)
		next.ServeHTTP(w, r)
	})
}

// clientAddress follows the proxies back from the peer, as long as they are trusted. What cannot be read ends the walk: the
// last address that a trusted proxy vouched for, or that proxy's own, is the client's. Without a change peer is returned as it is.
func clientAddress(peer string, values []string, trusted []netip.Prefix, header ForwardedHeader) string {
	at, err := netip.ParseAddrPort(peer)
	if err != nil {
		return peer
	}
	current := at.Addr().Unmap().WithZone("")
	hops := lastElements(values)
	moved := false
	for i := len(hops) - 1; i >= 0 && contains(trusted, current); i-- {
		said, ok := hopAddress(hops[i], header)
		if !ok {
			break
		}
		current, moved = said, true
	}
	if !moved {
		return peer
	}
	return net.JoinHostPort(current.String(), "0")
}

// lastElements are the last elements of a list header, which may come in several lines (RFC 9110 section 5.3).
func lastElements(values []string) []string {
	list := strings.Join(values, ",")
	elements := make([]string, 0, 4)
	for range maxForwardedHops {
		i := strings.LastIndexByte(list, ',')
		elements = append(elements, strings.TrimSpace(list[i+1:]))
		if i < 0 {
			break
		}
		list = list[:i]
	}
	for i, j := 0, len(elements)-1; i < j; i, j = i+1, j-1 {
		elements[i], elements[j] = elements[j], elements[i]
	}
	return elements
}

// hopAddress reads one element: an address with or without port, for Forwarded in its parameter "for". A name that stands
// for an address ("unknown", "_hidden") is none.
func hopAddress(element string, header ForwardedHeader) (netip.Addr, bool) {
	if header == Forwarded {
		var found bool
		if element, found = forParameter(element); !found {
			return netip.Addr{}, false
		}
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(element, "["), "]"))
	if err != nil {
		withPort, err := netip.ParseAddrPort(element)
		if err != nil {
			return netip.Addr{}, false
		}
		addr = withPort.Addr()
	}
	return addr.Unmap().WithZone(""), true
}

// forParameter is the value of "for" in one element of RFC 7239, once. A quoted value with escapes is not an address.
func forParameter(element string) (value string, found bool) {
	for pair := range strings.SplitSeq(element, ";") {
		name, given, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if !strings.EqualFold(name, "for") {
			continue
		}
		if found {
			return "", false
		}
		if len(given) >= 2 && given[0] == '"' && given[len(given)-1] == '"' {
			given = given[1 : len(given)-1]
		}
		value, found = given, true
	}
	return value, found
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	for _, prefix := range prefixes {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}
