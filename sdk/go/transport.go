package kapsel

import (
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect/v2"
)

// pings find out that a connection of HTTP/2 has died without a word, in time for another try within a call's 30 s. Without them every call
// and stream would go on over it, until the kernel gives it up after a quarter of an hour.
var pings = http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 10 * time.Second}

// pinging is http.DefaultTransport with pings, as it is when a request is made: programs and their tests replace it.
type pinging struct{}

// copies with pings of the transports that were http.DefaultTransport, so that all clients share their connections.
var copies sync.Map // of *http.Transport

func (pinging) RoundTrip(request *http.Request) (*http.Response, error) {
	standard, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport.RoundTrip(request)
	}
	made, found := copies.Load(standard)
	if !found {
		made, _ = copies.LoadOrStore(standard, withPings(standard, pings))
	}
	return made.(*http.Transport).RoundTrip(request)
}

func withPings(transport *http.Transport, pings http.HTTP2Config) *http.Transport {
	transport = transport.Clone()
	transport.HTTP2 = &pings
	return transport
}

// noRedirect has calls fail that are redirected. Most redirects make a GET of them, and some would show the API key to another server.
func noRedirect(request *http.Request, _ []*http.Request) error {
	return connect.Errorf(connect.CodeInvalidArgument, "the server redirects to %s: give the address that it is served at", request.URL.Redacted())
}
