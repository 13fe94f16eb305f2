package kapsel

import "net/http"

// SetPings changes the pings of transports that are used for the first time from now on, until restore is called.
func SetPings(changed http.HTTP2Config) (restore func()) {
	before := pings
	pings = changed
	return func() { pings = before }
}
