package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"
)

const (
	// The echo's address stays the same over restarts where it can, since it is the demo destination's URL.
	echoAddress      = "127.0.0.1:8099"
	maxEchoBodyBytes = 10 << 20
)

// echo is the demo's destination: it answers 200 with the bytes that it got.
type echo struct {
	URL    string
	server *http.Server
}

func startEcho(log *slog.Logger) (*echo, error) {
	listener, err := net.Listen("tcp", echoAddress)
	if err != nil {
		if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, fmt.Errorf("start echo destination: %w", err)
		}
	}
	server := &http.Server{ReadTimeout: 30 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEchoBodyBytes))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		log.Debug("arrived at the destination", "event_id", r.Header.Get("Webhook-Id"), "attempt", r.Header.Get("Kapsel-Attempt"), "payload_bytes", len(body))
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
	})}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("echo destination ended", "error", err)
		}
	}()
	return &echo{URL: "http://" + listener.Addr().String() + "/echo", server: server}, nil
}

func (e *echo) Close() { e.server.Close() }
