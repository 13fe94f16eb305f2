package bench

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"
)

const (
	dialTimeout = 5 * time.Second
	// answerTimeout bounds the wait for one answer. Deadlines are renewed only every
	// deadlineSlack, because setting one costs as much as stamping a webhook does.
	answerTimeout = 30 * time.Second
	deadlineSlack = 2 * time.Second
)

// exchange writes a request and reads its answer.
func (w *worker) exchange(id uint64) (status int, retryAfter time.Duration, err error) {
	if now := w.ledger.now(); now >= w.deadlineNs {
		w.deadlineNs = now + int64(deadlineSlack)
		if err := w.conn.SetDeadline(time.Now().Add(answerTimeout + deadlineSlack)); err != nil {
			return 0, 0, fmt.Errorf("set a deadline: %w", err)
		}
	}
	if _, err := w.conn.Write(w.webhook.stamp(id)); err != nil {
		return 0, 0, fmt.Errorf("send a webhook: %w", err)
	}
	status, f, err := readResponse(w.in)
	if err != nil {
		return 0, 0, fmt.Errorf("read an answer: %w", err)
	}
	if f.close {
		w.disconnect()
	}
	return status, f.retryAfter, nil
}

// readResponse consumes one response with its body, after any interim ones.
func readResponse(in *stream) (int, fields, error) {
	for {
		start, lines, err := in.head()
		if err != nil {
			return 0, fields{}, unexpected(err)
		}
		status, old, err := parseStatus(start)
		if err != nil {
			return 0, fields{}, err
		}
		f, err := parseFields(lines)
		if err != nil {
			return 0, f, err
		}
		if status < 200 {
			continue
		}
		bodiless := status == http.StatusNoContent || status == http.StatusNotModified
		// RFC 9112 section 6.3: without a length, the body ends with the connection.
		f.close = f.close || old || (!bodiless && !f.chunked && f.contentLength < 0)
		if !bodiless {
			_, err = in.body(f, true, nil)
		}
		return status, f, err
	}
}

// connect opens the worker's connection and ties it to ctx.
func (w *worker) connect(ctx context.Context) error {
	dialer := net.Dialer{Timeout: dialTimeout}
	var conn net.Conn
	var err error
	if w.target.tls {
		conn, err = (&tls.Dialer{NetDialer: &dialer, Config: &tls.Config{ServerName: w.target.name}}).DialContext(ctx, "tcp", w.target.dialAddr)
	} else {
		conn, err = dialer.DialContext(ctx, "tcp", w.target.dialAddr)
	}
	if err != nil {
		return err
	}
	w.untie = context.AfterFunc(ctx, func() { conn.Close() })
	w.conn, w.in, w.deadlineNs = conn, newStream(conn), 0
	return nil
}

func (w *worker) disconnect() {
	if w.conn == nil {
		return
	}
	w.untie()
	w.conn.Close()
	w.conn = nil
}
