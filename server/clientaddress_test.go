package server

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

var trustedForTests = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}

func TestOnlyTrustedProxiesAreBelieved(t *testing.T) {
	for name, c := range map[string]struct {
		peer   string
		header ForwardedHeader
		values []string
		want   string
	}{
		"stranger":               {"203.0.113.9:1", XForwardedFor, []string{"198.51.100.1"}, "203.0.113.9:1"},
		"nothing said":           {"10.0.0.1:1", XForwardedFor, nil, "10.0.0.1:1"},
		"one proxy":              {"10.0.0.1:1", XForwardedFor, []string{"198.51.100.1"}, "198.51.100.1:0"},
		"mapped peer":            {"[::ffff:10.0.0.1]:1", XForwardedFor, []string{"198.51.100.1"}, "198.51.100.1:0"},
		"two proxies":            {"10.0.0.1:1", XForwardedFor, []string{"198.51.100.1, 10.0.0.2"}, "198.51.100.1:0"},
		"client's own invention": {"10.0.0.1:1", XForwardedFor, []string{"127.0.0.1, 198.51.100.1"}, "198.51.100.1:0"},
		"invented line":          {"10.0.0.1:1", XForwardedFor, []string{"127.0.0.1", "198.51.100.1"}, "198.51.100.1:0"},
		"trusted all the way":    {"10.0.0.1:1", XForwardedFor, []string{"10.0.0.3,10.0.0.2"}, "10.0.0.3:0"},
		"with port":              {"10.0.0.1:1", XForwardedFor, []string{"198.51.100.1:4711"}, "198.51.100.1:0"},
		"IPv6":                   {"10.0.0.1:1", XForwardedFor, []string{"2001:db8::1"}, "[2001:db8::1]:0"},
		"IPv6 in brackets":       {"10.0.0.1:1", XForwardedFor, []string{"[2001:db8::1]:4711"}, "[2001:db8::1]:0"},
		"zone":                   {"10.0.0.1:1", XForwardedFor, []string{"fe80::1%eth0"}, "[fe80::1]:0"},
		"rubbish":                {"10.0.0.1:1", XForwardedFor, []string{"198.51.100.1, rubbish"}, "10.0.0.1:1"},
		"rubbish behind a hop":   {"10.0.0.1:1", XForwardedFor, []string{"rubbish, 10.0.0.2"}, "10.0.0.2:0"},
		"empty":                  {"10.0.0.1:1", XForwardedFor, []string{""}, "10.0.0.1:1"},
		"other header":           {"10.0.0.1:1", XForwardedFor, []string{"for=198.51.100.1"}, "10.0.0.1:1"},
		"Forwarded":              {"10.0.0.1:1", Forwarded, []string{`for=198.51.100.1;proto=https;by=10.0.0.1`}, "198.51.100.1:0"},
		"Forwarded, quoted":      {"10.0.0.1:1", Forwarded, []string{`proto=http; For="[2001:db8::1]:80"`}, "[2001:db8::1]:0"},
		"Forwarded, hidden":      {"10.0.0.1:1", Forwarded, []string{`for=_hidden`}, "10.0.0.1:1"},
		"Forwarded, twice":       {"10.0.0.1:1", Forwarded, []string{`for=1.2.3.4;for=4.3.2.1`}, "10.0.0.1:1"},
		"many hops":              {"10.0.0.1:1", XForwardedFor, []string{"198.51.100.1" + strings.Repeat(",10.0.0.2", 500)}, "10.0.0.2:0"},
	} {
		if got := clientAddress(c.peer, c.values, trustedForTests, c.header); got != c.want {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

func TestHeadersSayNothingWithoutTrustedProxies(t *testing.T) {
	var seen string
	next := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.RemoteAddr })
	request := httptest.NewRequest(http.MethodPost, "/", nil)
	request.RemoteAddr = "10.0.0.1:1"
	request.Header.Set("X-Forwarded-For", "198.51.100.1")
	request.Header.Set("Forwarded", "for=198.51.100.2")
	for _, c := range []struct {
		trusted []netip.Prefix
		want    string
	}{{nil, "10.0.0.1:1"}, {trustedForTests, "198.51.100.1:0"}} {
		behindProxies(next, c.trusted, "").ServeHTTP(nil, request.Clone(t.Context()))
		if seen != c.want {
			t.Errorf("trusting %v: %s, want %s", c.trusted, seen, c.want)
		}
	}
}

func FuzzClientAddress(f *testing.F) {
	for _, seed := range []string{"198.51.100.1", "10.0.0.2, 198.51.100.1:80", "[::1]:80", `for="[2001:db8::1]";by=x`, "for=", ",,,,", "fe80::1%0"} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, value string, x bool) {
		header := Forwarded
		if x {
			header = XForwardedFor
		}
		got := clientAddress("10.0.0.1:1", []string{value}, trustedForTests, header)
		if _, err := netip.ParseAddrPort(got); err != nil {
			t.Errorf("%q makes %q, which is no address", value, got)
		}
		if got := clientAddress("203.0.113.9:1", []string{value}, trustedForTests, header); got != "203.0.113.9:1" {
			t.Errorf("%q of a stranger makes %q", value, got)
		}
	})
}
