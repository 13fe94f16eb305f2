package server

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"time"
)

// Admin is a listener of its own for those who run the node: profiles, health and what is mounted besides. It asks for no
// key, so it binds to a loopback address unless it is told otherwise.
type Admin struct {
	listener net.Listener
	http     *http.Server
}

// ErrNotLoopback refuses an address of the admin listener that others could reach.
var ErrNotLoopback = errors.New("the admin listener asks for no key: bind it to a loopback address, or set --admin-public and keep others away from it")

// adminStop is how long a profile that is being taken may hold up the end.
const adminStop = time.Second

// OpenAdmin listens on address. Handlers are mounted by their paths, "/metrics" for one. With public, address may be one that
// other machines reach.
func OpenAdmin(address string, public bool, ready, concern func() error, handlers map[string]http.Handler, errorLog *log.Logger) (*Admin, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	at, err := netip.ParseAddrPort(listener.Addr().String())
	if loopback := err == nil && at.Addr().Unmap().IsLoopback(); !loopback && !public { // what it came to, not what it was called
		listener.Close()
		return nil, fmt.Errorf("admin listener on %s: %w", address, ErrNotLoopback)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { writeText(w, http.StatusOK, "alive\n") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := ready(); err != nil { // in full: who asks here runs the node
			writeText(w, http.StatusServiceUnavailable, err.Error()+"\n")
			return
		}
		if err := concern(); err != nil {
			writeText(w, http.StatusOK, "ready, and an operator must look: "+err.Error()+"\n")
			return
		}
		writeText(w, http.StatusOK, "ready\n")
	})
	for path, handler := range handlers {
		mux.Handle(path, handler)
	}
	var handler http.Handler = secured(mux, false)
	if !public {
		handler = forLocals(handler)
	}
	return &Admin{listener: listener, http: &http.Server{
		Handler: handler, ReadHeaderTimeout: readHeaderTimeout, ReadTimeout: readHeaderTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ErrorLog: errorLog,
	}}, nil
}

// forLocals answers only requests for an address or localhost: a page whose name was made to resolve to this machine (DNS
// rebinding) has another one in its Host.
func forLocals(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := remoteHost(r.Host)
		if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
			writeText(w, http.StatusForbidden, "ask by address, or by the name localhost\n")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// URL is where it listens.
func (a *Admin) URL() string { return "http://" + a.listener.Addr().String() }

// Run serves until ctx ends.
func (a *Admin) Run(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- a.http.Serve(a.listener) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminStop)
	defer cancel()
	if a.http.Shutdown(stopping) != nil {
		a.http.Close()
	}
	<-failed
	return ctx.Err()
}

// Close ends it when it was never run.
func (a *Admin) Close() error { return a.http.Close() }
