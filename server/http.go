package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net"
	"net/http"
	"time"

	connectv1 "connectrpc.com/connect"
	"connectrpc.com/grpchealth"
)

// What a client may take its time for. Bodies have a deadline of their own where they are read.
const (
	readHeaderTimeout = 5 * time.Second
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 64 << 10
	// unreadTimeout is for a body over HTTP/1.1 that no handler reads, such as that of a webhook to an endpoint that does not
	// exist: net/http reads the rest of it before it answers.
	unreadTimeout = 15 * time.Second
	// pingAfter is how long an HTTP/2 connection may be silent before its client is asked whether it is there; without an
	// answer within pingTimeout it is closed. Streams that have nothing to say stay open.
	pingAfter   = 30 * time.Second
	pingTimeout = 15 * time.Second
	// maxStreams of one HTTP/2 connection at once.
	maxStreams = 250
)

// HTTPServer serves a handler of New on one port: HTTP/1.1 and HTTP/2, with TLS or without (h2c). Plain webhooks have a way
// of their own through it, see quickServer.
type HTTPServer struct {
	quick *quickServer
	http  *http.Server
}

// NewHTTPServer makes the server for a handler of New. With a TLS configuration it speaks nothing else; nil: no TLS.
// Panics and broken connections go to errorLog.
func NewHTTPServer(handler http.Handler, secure *tls.Config, errorLog *log.Logger) *HTTPServer {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(secure != nil)
	protocols.SetUnencryptedHTTP2(secure == nil)
	quick := newQuickServer(handler, errorLog)
	quick.secure = secure
	return &HTTPServer{
		quick: quick,
		http: &http.Server{
			Handler:           awaitBodies(handler, unreadTimeout),
			Protocols:         protocols,
			HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
			ReadHeaderTimeout: readHeaderTimeout,
			IdleTimeout:       idleTimeout,
			MaxHeaderBytes:    maxHeaderBytes,
			ErrorLog:          errorLog,
		},
	}
}

// awaitBodies bounds for how long a body is waited for. A handler that reads it sets a deadline of its own.
func awaitBodies(next http.Handler, timeout time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 && r.Body != http.NoBody {
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(timeout)) // the next request gets another one
		}
		next.ServeHTTP(w, r)
	})
}

// Serve serves the connections of listener. It returns http.ErrServerClosed after Shutdown or Close.
func (s *HTTPServer) Serve(listener net.Listener) error {
	s.quick.others.addr = listener.Addr()
	failed := make(chan error, 2)
	go func() { failed <- accept(listener, s.quick) }()
	go func() { failed <- s.http.Serve(s.quick.others) }()
	err := <-failed
	listener.Close()
	s.quick.others.Close()
	<-failed
	if s.quick.draining.Load() {
		return http.ErrServerClosed
	}
	return err
}

// Shutdown takes no more connections and requests, and waits until those under way are answered, or ctx ends.
func (s *HTTPServer) Shutdown(ctx context.Context) error {
	quick := make(chan error, 1)
	go func() { quick <- s.quick.shutdown(ctx) }()
	err := s.http.Shutdown(ctx)
	return errors.Join(err, <-quick)
}

// Close ends all connections at once.
func (s *HTTPServer) Close() error {
	s.quick.close()
	return s.http.Close()
}

// serveLive says that the process runs, and nothing about what it depends on: a restart helps against neither.
func (a *api) serveLive(w http.ResponseWriter, _ *http.Request) {
	writeText(w, http.StatusOK, "kapsel "+a.Version+" is alive\n")
}

// serveReady says whether the node can take webhooks now.
func (a *api) serveReady(w http.ResponseWriter, r *http.Request) {
	if err := a.Ready(); err != nil {
		a.Logger.WarnContext(r.Context(), "not ready", "error", err)
		w.Header().Set("Retry-After", "1")
		writeText(w, http.StatusServiceUnavailable, "not ready\n")
		return
	}
	if a.Concern != nil && a.Concern() != nil { // why is told at the admin listener, and in the log
		writeText(w, http.StatusOK, "ready, and an operator must look\n")
		return
	}
	writeText(w, http.StatusOK, "ready\n")
}

func writeText(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write([]byte(text))
}

// newHealthHandler serves grpc.health.v1. Only the process as a whole has a health: its services come and go together.
func newHealthHandler(a *api) (string, http.Handler) {
	return grpchealth.NewHandler(healthChecker{a})
}

type healthChecker struct{ api *api }

func (h healthChecker) Check(_ context.Context, request *grpchealth.CheckRequest) (*grpchealth.CheckResponse, error) {
	if request.Service != "" && !h.api.services[request.Service] {
		return nil, connectv1.NewError(connectv1.CodeNotFound, nil)
	}
	if h.api.Ready() != nil {
		return &grpchealth.CheckResponse{Status: grpchealth.StatusNotServing}, nil
	}
	return &grpchealth.CheckResponse{Status: grpchealth.StatusServing}, nil
}
