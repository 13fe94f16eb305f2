package node

import (
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// proxy stands between a node and its database, so that the database can go away for one node.
type proxy struct {
	url      string
	listener net.Listener

	mu    sync.Mutex
	conns []net.Conn
}

func newProxy(t testing.TB, databaseURL string) *proxy {
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
	port := strconv.Itoa(int(config.Port))
	p := new(proxy)
	if p.listener, err = net.Listen("unix", filepath.Join(dir, ".s.PGSQL."+port)); err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	query.Set("host", dir)
	query.Set("port", port)
	u.Host, u.RawQuery = "", query.Encode()
	p.url = u.String()
	network, address := pgconn.NetworkAddress(config.Host, config.Port)
	var group sync.WaitGroup
	group.Go(func() {
		for {
			client, err := p.listener.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial(network, address)
			if err != nil {
				client.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, client, server)
			p.mu.Unlock()
			for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
				group.Go(func() {
					io.Copy(way[0], way[1])
					way[0].Close()
				})
			}
		}
	})
	t.Cleanup(func() {
		p.close()
		group.Wait()
		os.RemoveAll(dir)
	})
	return p
}

// close breaks all connections, and takes no more.
func (p *proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		conn.Close()
	}
}
