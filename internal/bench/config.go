package bench

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"
)

// What a zero field of Config stands for.
const (
	DefaultConns        = 64
	DefaultDuration     = 10 * time.Second
	DefaultPayloadBytes = 1024
	DefaultDrainTimeout = 60 * time.Second
)

// Bounds of a run. A connection costs two goroutines and two small buffers; the
// largest payload is the largest body that an endpoint can be set to take.
const (
	maxConns        = 10_000
	maxPayloadBytes = 10 << 20
	minPayloadBytes = 256
	maxRate         = 1_000_000
)

// Config says what load to put on which endpoint.
type Config struct {
	// IngestURL is the endpoint's full address, http or https. The endpoint must use
	// the GitHub preset.
	IngestURL string
	// Secret is the endpoint's signing secret, used byte for byte as the HMAC key.
	Secret string
	// Conns is the number of keep-alive connections, each with one webhook in flight.
	Conns int
	// Duration is how long webhooks are sent, warm-up and drain not included.
	Duration time.Duration
	// Rate is the number of webhooks a second over all connections. At 0 each
	// connection sends its next webhook as soon as the last one was answered.
	Rate float64
	// PayloadBytes is the exact size of a webhook's body.
	PayloadBytes int
	// Impatient sends on schedule whatever Retry-After asks for.
	Impatient bool
	// Keys is how many keys webhooks have, in turn, in KeyHeader. At 0 they have none.
	Keys int
	// Warmup is sent and drained before anything is measured. Its losses and
	// duplicates count all the same.
	Warmup time.Duration
	// DrainTimeout bounds the wait for what was accepted to be delivered, recorded
	// and sealed.
	DrainTimeout time.Duration
	// Progress is told several times a second how far a stage of the run is, in one call at a
	// time, such as "s of load", 3, 10. Nil: nobody is.
	Progress func(stage string, done, total int64)
}

func (c Config) withDefaults() Config {
	if c.Conns == 0 {
		c.Conns = DefaultConns
	}
	if c.Duration == 0 {
		c.Duration = DefaultDuration
	}
	if c.PayloadBytes == 0 {
		c.PayloadBytes = DefaultPayloadBytes
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = DefaultDrainTimeout
	}
	if c.Progress == nil {
		c.Progress = func(string, int64, int64) {}
	}
	return c
}

// Validate reports every field that is out of its bounds. Zero fields are in bounds
// where they have a default.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	if _, err := parseTarget(c.IngestURL); err != nil {
		errs = append(errs, err)
	}
	if c.Secret == "" {
		errs = append(errs, errors.New("the signing secret is empty"))
	}
	if c.Conns < 1 || c.Conns > maxConns {
		errs = append(errs, fmt.Errorf("connections: %d is not in 1 to %d", c.Conns, maxConns))
	}
	if c.Duration < 0 || c.Warmup < 0 || c.DrainTimeout < 0 {
		errs = append(errs, errors.New("duration, warm-up and drain timeout must not be negative"))
	}
	if !(c.Rate >= 0 && c.Rate <= maxRate) {
		errs = append(errs, fmt.Errorf("rate: %g is not in 0 to %d webhooks/s", c.Rate, maxRate))
	}
	if longest := max(c.Duration, c.Warmup); c.Rate*longest.Seconds() > maxWebhooks {
		errs = append(errs, fmt.Errorf("rate and duration make more than %d webhooks", maxWebhooks))
	}
	if c.PayloadBytes < minPayloadBytes || c.PayloadBytes > maxPayloadBytes {
		errs = append(errs, fmt.Errorf("payload: %d is not in %d to %d bytes", c.PayloadBytes, minPayloadBytes, maxPayloadBytes))
	}
	if c.Keys < 0 || int64(c.Keys) > maxKeys {
		errs = append(errs, fmt.Errorf("keys: %d is not in 0 to %d", c.Keys, int64(maxKeys)))
	}
	return errors.Join(errs...)
}

// target is an ingest URL, taken apart into what a connection needs.
type target struct {
	dialAddr string // host:port
	host     string // the Host header
	name     string // the server's name for TLS
	path     string // path and query, as sent in the request line
	tls      bool
}

func parseTarget(raw string) (target, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return target{}, fmt.Errorf("ingest URL: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Hostname() == "" || u.User != nil {
		return target{}, fmt.Errorf("ingest URL %q: want http(s)://host/path", u.Redacted())
	}
	t := target{host: u.Host, name: u.Hostname(), path: u.RequestURI(), tls: u.Scheme == "https"}
	port := u.Port()
	if port == "" {
		port = "80"
		if t.tls {
			port = "443"
		}
	}
	t.dialAddr = net.JoinHostPort(u.Hostname(), port)
	return t, nil
}
