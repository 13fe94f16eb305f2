package kapsel_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

// breaker stands before a server and breaks its first connections.
type breaker struct {
	address  string // of the server
	failures int32
	reset    bool // by a reset, as a process that was killed leaves them
	silent   bool // not at all, as a machine that is off leaves them
	after    int  // once so many bytes of the answer have passed; negative: before there is a request
	broken   atomic.Int32
}

func (b *breaker) listen(t *testing.T) (url string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go b.serve(client.(*net.TCPConn))
		}
	}()
	return "http://" + listener.Addr().String()
}

func (b *breaker) serve(client *net.TCPConn) {
	defer client.Close()
	breaks := b.broken.Add(1) <= b.failures
	if breaks && b.reset {
		client.SetLinger(0)
	}
	if breaks && b.after < 0 {
		return
	}
	server, err := net.Dial("tcp", b.address)
	if err != nil {
		return
	}
	defer server.Close()
	go io.Copy(server, client)
	if breaks {
		io.CopyN(client, server, int64(b.after))
		if b.after == 0 {
			io.ReadFull(server, make([]byte, 1)) // the answer is on its way
		}
		if b.silent {
			io.Copy(io.Discard, server)
		}
		return
	}
	io.Copy(client, server)
}

// wordy answers at length.
type wordy struct {
	kapselv1connect.UnimplementedEventServiceHandler
	kapselv1connect.UnimplementedEndpointServiceHandler
	kapselv1connect.UnimplementedAttestationServiceHandler
	created atomic.Int32
}

// packages are how many an export has.
const packages = 6

func (w *wordy) ExportProofPackages(_ context.Context, request *kapselv1.ExportProofPackagesRequest, stream kapselv1connect.AttestationServiceExportProofPackagesServerStream) error {
	from, _ := strconv.Atoi(request.ResumeToken)
	for i := from; i < packages; i++ {
		message := &kapselv1.ExportProofPackagesResponse{Packages: []*kapselv1.ProofPackage{{Json: random()}}, ResumeToken: strconv.Itoa(i + 1)}
		if err := stream.Send(message); err != nil {
			return err
		}
	}
	return nil
}

// random bytes do not get fewer by compression.
func random() []byte {
	text := make([]byte, 2000)
	rand.Read(text)
	return text
}

func (w *wordy) GetEvent(context.Context, *kapselv1.GetEventRequest) (*kapselv1.GetEventResponse, error) {
	return &kapselv1.GetEventResponse{Event: &kapselv1.Event{Id: hex.EncodeToString(random())}}, nil
}

func (w *wordy) CreateEndpoint(context.Context, *kapselv1.CreateEndpointRequest) (*kapselv1.CreateEndpointResponse, error) {
	w.created.Add(1)
	return new(kapselv1.CreateEndpointResponse), nil
}

func (w *wordy) serve(t *testing.T) *httptest.Server {
	rpc := connect.NewServer()
	kapselv1connect.RegisterEventServiceHandler(rpc, w)
	kapselv1connect.RegisterEndpointServiceHandler(rpc, w)
	kapselv1connect.RegisterAttestationServiceHandler(rpc, w)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, rpc)
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = protocols(true, true)
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// What a read, a stream and a write come to when connections break before the request, with the answer under way, in its head and in its body.
func TestConnectionsThatBreak(t *testing.T) {
	w := new(wordy)
	server := w.serve(t)
	for _, protocol := range []struct {
		name    string
		http2   bool
		options []kapsel.Option
	}{{name: "Connect over HTTP/1.1"}, {name: "Connect over HTTP/2", http2: true}, {"gRPC", true, []kapsel.Option{kapsel.WithGRPC()}}} {
		for _, reset := range []bool{false, true} {
			for _, after := range []int{-1, 0, 20, 1000} {
				t.Run(fmt.Sprintf("%s, reset %t, after %d", protocol.name, reset, after), func(t *testing.T) {
					broken := func() (*kapsel.Client, *breaker) {
						b := &breaker{address: server.Listener.Addr().String(), failures: 2, reset: reset, after: after}
						transport := &http.Transport{Protocols: protocols(!protocol.http2, protocol.http2)}
						t.Cleanup(transport.CloseIdleConnections)
						options := append([]kapsel.Option{kapsel.WithRetry(fast), kapsel.WithHTTPClient(&http.Client{Transport: transport})}, protocol.options...)
						client, err := kapsel.New(b.listen(t), options...)
						if err != nil {
							t.Fatal(err)
						}
						return client, b
					}
					client, b := broken()
					answer, err := client.Events.GetEvent(t.Context(), new(kapselv1.GetEventRequest))
					if err != nil || len(answer.Event.GetId()) != 4000 || b.broken.Load() < 3 {
						t.Errorf("a read over %d connections, 2 of them broken: %v", b.broken.Load(), err)
					}
					client, b = broken()
					exported := 0
					for _, err := range client.ExportProofPackages(t.Context(), new(kapselv1.ExportProofPackagesRequest), kapsel.Stream{Retry: fast}) {
						if err != nil {
							t.Errorf("a stream over %d connections, 2 of them broken: %v", b.broken.Load(), err)
						}
						exported++
					}
					if exported != packages || b.broken.Load() < 3 {
						t.Errorf("%d of %d packages came over %d connections, 2 of them broken", exported, packages, b.broken.Load())
					}
					client, b = broken()
					w.created.Store(0)
					_, err = client.Endpoints.CreateEndpoint(t.Context(), &kapselv1.CreateEndpointRequest{Endpoint: new(kapselv1.Endpoint)})
					if (err != nil && connect.CodeOf(err) != connect.CodeUnavailable) || w.created.Load() > 1 {
						t.Errorf("a write was done %d times and ended with %v", w.created.Load(), err)
					}
				})
			}
		}
	}
}

// A proxy makes something of its own of connections to the server that break.
func TestProxyWhoseConnectionsBreak(t *testing.T) {
	server := new(wordy).serve(t)
	for _, protocol := range []struct {
		name    string
		http2   bool
		options []kapsel.Option
	}{{name: "Connect over HTTP/1.1"}, {name: "Connect over HTTP/2", http2: true}, {"gRPC", true, []kapsel.Option{kapsel.WithGRPC()}}} {
		for _, after := range []int{-1, 20, 1000} {
			t.Run(fmt.Sprintf("%s, after %d", protocol.name, after), func(t *testing.T) {
				client := func() *kapsel.Client {
					b := &breaker{address: server.Listener.Addr().String(), failures: 2, reset: true, after: after}
					target, err := url.Parse(b.listen(t))
					if err != nil {
						t.Fatal(err)
					}
					proxy := httptest.NewUnstartedServer(&httputil.ReverseProxy{
						Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
						Transport: &http.Transport{Protocols: protocols(false, true)},
						ErrorLog:  log.New(io.Discard, "", 0),
					})
					proxy.Config.Protocols = protocols(true, true)
					proxy.Config.ErrorLog = log.New(io.Discard, "", 0)
					proxy.Start()
					t.Cleanup(proxy.Close)
					transport := &http.Transport{Protocols: protocols(!protocol.http2, protocol.http2)}
					t.Cleanup(transport.CloseIdleConnections)
					options := append([]kapsel.Option{kapsel.WithRetry(fast), kapsel.WithHTTPClient(&http.Client{Transport: transport})}, protocol.options...)
					client, err := kapsel.New(proxy.URL, options...)
					if err != nil {
						t.Fatal(err)
					}
					return client
				}
				if answer, err := client().Events.GetEvent(t.Context(), new(kapselv1.GetEventRequest)); err != nil || len(answer.Event.GetId()) != 4000 {
					t.Errorf("a read: %v", err)
				}
				exported := 0
				for _, err := range client().ExportProofPackages(t.Context(), new(kapselv1.ExportProofPackagesRequest), kapsel.Stream{Retry: fast}) {
					if err != nil {
						t.Errorf("a stream: %v", err)
					}
					exported++
				}
				if exported != packages {
					t.Errorf("%d of %d packages came", exported, packages)
				}
			})
		}
	}
}

// A client with the default transport leaves a connection that has died without a word.
func TestConnectionsThatDie(t *testing.T) {
	server := new(wordy).serve(t)
	standard := http.DefaultTransport
	http.DefaultTransport = &http.Transport{Protocols: protocols(false, true)} // as https is
	restore := kapsel.SetPings(http.HTTP2Config{SendPingTimeout: 50 * time.Millisecond, PingTimeout: time.Second})
	t.Cleanup(func() {
		http.DefaultTransport = standard
		restore()
	})
	patient := kapsel.Retry{MaxAttempts: 20, InitialWait: time.Millisecond, MaxWait: 2 * time.Millisecond}
	for name, options := range map[string][]kapsel.Option{"Connect": nil, "gRPC": {kapsel.WithGRPC()}} {
		for _, after := range []int{0, 20, 1000} {
			t.Run(fmt.Sprintf("%s, after %d", name, after), func(t *testing.T) {
				t.Parallel()
				dying := func() *kapsel.Client {
					b := &breaker{address: server.Listener.Addr().String(), failures: 1, silent: true, after: after}
					client, err := kapsel.New(b.listen(t), append(options, kapsel.WithRetry(patient))...)
					if err != nil {
						t.Fatal(err)
					}
					return client
				}
				if answer, err := dying().Events.GetEvent(t.Context(), new(kapselv1.GetEventRequest)); err != nil || len(answer.Event.GetId()) != 4000 {
					t.Errorf("a read: %v", err)
				}
				exported := 0
				for _, err := range dying().ExportProofPackages(t.Context(), new(kapselv1.ExportProofPackagesRequest), kapsel.Stream{Retry: patient}) {
					if err != nil {
						t.Errorf("a stream: %v", err)
					}
					exported++
				}
				if exported != packages {
					t.Errorf("%d of %d packages came", exported, packages)
				}
			})
		}
	}
}

func protocols(http1, http2 bool) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(http1)
	p.SetUnencryptedHTTP2(http2)
	return p
}
