package pgtest

import (
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Proxy stands between a node and its database, and breaks what is asked of it.
type Proxy struct {
	// URL of the database, through the proxy.
	URL string
	// Direct is the database's own URL.
	Direct  string
	network string
	address string
	// Away refuses connections.
	Away atomic.Bool
	// DropAnswer: the next answer is lost, and its connection with it.
	DropAnswer atomic.Bool

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// NewProxy makes one that ends with the test.
func NewProxy(t testing.TB, databaseURL string) *Proxy {
	t.Helper()
	config, err := pgx.ParseConfig(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "proxy") // short: the name of a socket is
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Direct: databaseURL, conns: make(map[net.Conn]bool)}
	p.network, p.address = pgconn.NetworkAddress(config.Host, config.Port)
	listener, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL."+strconv.Itoa(int(config.Port))))
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("host", dir)
	query.Set("port", strconv.Itoa(int(config.Port)))
	u.Host, u.RawQuery = "", query.Encode()
	p.URL = u.String()
	var group sync.WaitGroup
	group.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() { p.serve(client) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.Cut()
		group.Wait()
		os.RemoveAll(dir)
	})
	return p
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	if p.Away.Load() {
		return
	}
	server, err := net.Dial(p.network, p.address)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	p.conns[client] = true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.conns, client)
		p.mu.Unlock()
	}()
	go func() {
		defer server.Close()
		io.Copy(server, client)
	}()
	buffer := make([]byte, 64<<10)
	for {
		n, err := server.Read(buffer)
		if err != nil || p.DropAnswer.CompareAndSwap(true, false) {
			return
		}
		if _, err := client.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// Cut breaks all connections. What the server has received it still does.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		conn.Close()
	}
}
