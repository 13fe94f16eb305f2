package delivery

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/kapsel-dev/kapsel/internal/route"
)

// transportIdle is after how long without use the connections that bear a client certificate are given up.
const transportIdle = 10 * time.Minute

// newTransport makes the client for https: HTTP/2 where the destination speaks it. config nil: the system's authorities.
func newTransport(d *dialer, config *tls.Config) *http.Transport {
	t := &http.Transport{
		Proxy:                  nil,            // the dialer goes through it, so that the guard sees the destination's own address
		TLSClientConfig:        config.Clone(), // http.Transport adds to it
		ForceAttemptHTTP2:      config == nil || config.NextProtos == nil,
		MaxIdleConns:           maxIdleConns,
		MaxIdleConnsPerHost:    1000, // the largest max_in_flight: no connection is closed between two sends of a busy lane
		IdleConnTimeout:        idleConnTimeout,
		MaxResponseHeaderBytes: maxResponseHeaderBytes,
		DisableCompression:     true, // the response is hashed as it came
		WriteBufferSize:        8 << 10,
	}
	t.DialContext = d.dial // no request comes this way; if one did, it would be guarded
	t.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := withConnectTimeout(ctx)
		defer cancel()
		conn, err := d.dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return handshake(ctx, conn, address, t.TLSClientConfig)
	}
	return t
}

// staying keeps to HTTP. After a status of 101 the body would be the connection itself, which the transport has let go of then: no
// deadline would end its reading.
type staying struct{ *http.Transport }

func (s staying) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := s.Transport.RoundTrip(request)
	if err == nil && response.StatusCode == http.StatusSwitchingProtocols {
		response.Body.Close()
		response.Body = http.NoBody
	}
	return response, err
}

// transports are the clients of destinations that want TLS spoken in a way of their own. One that bears a certificate never
// serves another destination than those with the same certificate, key and authorities.
type transports struct {
	dialer *dialer
	mu     sync.Mutex
	made   map[[sha256.Size]byte]*usedTransport
	swept  time.Time
}

type usedTransport struct {
	*http.Transport
	used time.Time
}

func (t *transports) of(client *route.ClientTLS) *http.Transport {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if now.Sub(t.swept) > transportIdle/10 {
		t.swept = now
		for key, made := range t.made {
			if now.Sub(made.used) > transportIdle {
				made.CloseIdleConnections()
				delete(t.made, key)
			}
		}
	}
	made := t.made[client.Fingerprint]
	if made == nil {
		made = &usedTransport{Transport: newTransport(t.dialer, client.Config)}
		t.made[client.Fingerprint] = made
	}
	made.used = now
	return made.Transport
}

func (t *transports) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, made := range t.made {
		made.CloseIdleConnections()
	}
}
