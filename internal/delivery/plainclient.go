package delivery

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// plainClient speaks HTTP/1.1 without TLS. It costs half of what http.Transport does a request (docs/performance.md): the
// goroutine that sends also writes and reads, so there is no hand-over to two others and back. Parsing and framing are
// net/http's. What it does not do, deliveries do not need: proxies, redirects, cookies, cancellation before the deadline.
type plainClient struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu    sync.Mutex
	idle  map[string][]*plainConn // by address, the one used last at the end
	sweep *time.Timer             // runs while there are idle connections
}

// plainConn is one connection.
type plainConn struct {
	net.Conn
	address string
	in      *bufio.Reader
	limit   *io.LimitedReader // between the connection and in: of what comes before a body
	out     *bufio.Writer
	used    time.Time
}

const (
	// A response may be announced by so many interim ones.
	maxInterim = 8
	// An answer to a request that could not be written in time must be there already: so long it takes to read it.
	lastLook = 250 * time.Millisecond
)

func newPlainClient(dial func(ctx context.Context, network, address string) (net.Conn, error)) *plainClient {
	return &plainClient{dial: dial, idle: make(map[string][]*plainConn)}
}

// roundTrip sends the request, whose context has a deadline. When the response's body was read to its end, closing it
// gives the connection back.
func (c *plainClient) roundTrip(request *http.Request) (*http.Response, error) {
	conn, err := c.connection(request)
	if err != nil {
		return nil, err
	}
	response, err := conn.exchange(request)
	if err != nil {
		conn.Close()
		return nil, err
	}
	keep := !response.Close && response.StatusCode != http.StatusSwitchingProtocols
	response.Body = &plainBody{ReadCloser: response.Body, client: c, conn: conn, keep: keep}
	return response, nil
}

func (c *plainClient) connection(request *http.Request) (*plainConn, error) {
	address := request.URL.Host
	if request.URL.Port() == "" {
		address = net.JoinHostPort(request.URL.Hostname(), "80")
	}
	deadline, _ := request.Context().Deadline()
	for conn := c.take(address); conn != nil; conn = c.take(address) {
		if silent(conn.Conn) {
			return conn, conn.SetDeadline(deadline)
		}
		conn.Close() // the destination closed it, or sent more than its answer
	}
	network, err := c.dial(request.Context(), "tcp", address)
	if err != nil {
		return nil, err
	}
	limit := &io.LimitedReader{R: network}
	conn := &plainConn{
		Conn: network, address: address, limit: limit,
		in: bufio.NewReader(limit), out: bufio.NewWriterSize(network, 8<<10),
	}
	return conn, conn.SetDeadline(deadline)
}

// exchange writes the request and reads the head of its response. A destination may answer before it has read all, and then
// read no more: its answer counts.
func (c *plainConn) exchange(request *http.Request) (*http.Response, error) {
	err := request.Write(c.out)
	broken := c.out.Flush() // what the connection said, which request.Write does not let through
	switch {
	case broken == nil && err != nil:
		return nil, err
	case broken == nil:
		return c.readHead(request)
	case isTimeout(broken):
		c.SetDeadline(time.Now().Add(lastLook))
	}
	response, err := c.readHead(request)
	if err != nil {
		return nil, broken
	}
	response.Close = true
	return response, nil
}

func (c *plainConn) readHead(request *http.Request) (*http.Response, error) {
	c.limit.N = maxResponseHeaderBytes
	for range maxInterim {
		response, err := http.ReadResponse(c.in, request)
		if err != nil {
			if c.limit.N <= 0 {
				err = fmt.Errorf("response headers are longer than %d bytes", maxResponseHeaderBytes)
			}
			return nil, err
		}
		if response.StatusCode >= 200 || response.StatusCode == http.StatusSwitchingProtocols {
			c.limit.N = math.MaxInt64 // who reads the body has a bound of its own, without its framing
			return response, nil
		}
	}
	return nil, errors.New("too many interim responses")
}

func (c *plainClient) take(address string) *plainConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	conns := c.idle[address]
	if len(conns) == 0 {
		return nil
	}
	conn := conns[len(conns)-1]
	conns[len(conns)-1] = nil
	c.idle[address] = conns[:len(conns)-1]
	return conn
}

func (c *plainClient) put(conn *plainConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	conn.used = time.Now()
	c.idle[conn.address] = append(c.idle[conn.address], conn)
	if c.sweep == nil {
		c.sweep = time.AfterFunc(idleConnTimeout, c.closeOld)
	}
}

// closeOld closes what was idle for too long.
func (c *plainClient) closeOld() { c.closeIdle(time.Now().Add(-idleConnTimeout)) }

// closeIdle closes the connections that were last used before that moment.
func (c *plainClient) closeIdle(before time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for address, conns := range c.idle {
		n := 0
		for n < len(conns) && conns[n].used.Before(before) {
			conns[n].Close()
			n++
		}
		if conns = slices.Delete(conns, 0, n); len(conns) > 0 {
			c.idle[address] = conns
		} else {
			delete(c.idle, address)
		}
	}
	if c.sweep != nil {
		c.sweep.Stop()
		c.sweep = nil
	}
	if len(c.idle) > 0 {
		c.sweep = time.AfterFunc(idleConnTimeout, c.closeOld)
	}
}

// plainBody is the body of a response. It notes whether it was read to its end.
type plainBody struct {
	io.ReadCloser
	client *plainClient
	conn   *plainConn
	keep   bool // the peer keeps the connection open
	ended  bool
}

func (b *plainBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || errors.Is(err, io.EOF)
	return n, err
}

func (b *plainBody) Close() error {
	if b.conn == nil {
		return nil
	}
	conn := b.conn
	b.conn = nil
	if b.keep && b.ended && conn.in.Buffered() == 0 {
		b.client.put(conn)
		return nil
	}
	return conn.Close()
}
