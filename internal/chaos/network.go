package chaos

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Link is the way of one process to another: a TCP proxy that passes everything on until it is told to suffer.
type Link struct {
	// Address is where to connect instead of the other process.
	Address string

	proxy *toxiproxy.Proxy
}

// Ailment is what a link may suffer from.
type Ailment string

const (
	// Slow links take 50 to 150 ms each way.
	Slow Ailment = "slow"
	// Resetting links break each connection soon after its next bytes, which are lost.
	Resetting Ailment = "resetting"
	// Cut links are partitioned: bytes vanish, and neither side is told. The connections break when the link heals.
	Cut Ailment = "cut"
	// Refusing links accept no connection and have dropped all that there were.
	Refusing Ailment = "refusing"
)

// toxicsOf are the proxy's words for an ailment, both ways.
var toxicsOf = map[Ailment][]string{
	Slow: {
		`{"type":"latency","stream":"upstream","attributes":{"latency":100,"jitter":50}}`,
		`{"type":"latency","stream":"downstream","attributes":{"latency":100,"jitter":50}}`,
	},
	Resetting: {
		`{"type":"reset_peer","stream":"upstream","toxicity":0.5,"attributes":{"timeout":20}}`,
		`{"type":"reset_peer","stream":"downstream","toxicity":0.5,"attributes":{"timeout":20}}`,
	},
	Cut: {
		`{"type":"timeout","stream":"upstream","attributes":{"timeout":0}}`,
		`{"type":"timeout","stream":"downstream","attributes":{"timeout":0}}`,
	},
}

// NewLink makes a link to the process that listens, or will listen, at upstream. It ends with the test.
func NewLink(t testing.TB, r *Random, upstream string) *Link {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	address := FreeAddress(t, r)
	l := &Link{Address: address, proxy: toxiproxy.NewProxy(server, address, address, upstream)}
	if err := l.proxy.Start(); err != nil {
		t.Fatalf("start a proxy at %s: %v", address, err)
	}
	t.Cleanup(l.proxy.Stop)
	return l
}

// Suffer begins an ailment. A link has one at a time.
func (l *Link) Suffer(a Ailment) error {
	if a == Refusing {
		l.proxy.Stop()
		return nil
	}
	for _, toxic := range toxicsOf[a] {
		if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
			return fmt.Errorf("make a link %s: %w", a, err)
		}
	}
	return nil
}

// Heal ends whatever the link suffers from.
func (l *Link) Heal(ctx context.Context) error {
	l.proxy.Toxics.ResetToxics(ctx)
	l.proxy.Lock()
	refusing := !l.proxy.Enabled
	l.proxy.Unlock()
	if refusing {
		if err := l.proxy.Start(); err != nil {
			return fmt.Errorf("start the proxy at %s again: %w", l.Address, err)
		}
	}
	return nil
}
