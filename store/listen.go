package store

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	listenRetry = time.Second
	// A dead connection that never says so is found by this.
	listenProbe = 30 * time.Second
)

// Listener holds the one connection of a node that waits for notifications (LISTEN). A notice can be lost while it
// reconnects, so after each connect every handler is called once with an empty payload: look for yourself.
type Listener struct {
	url      string
	log      *slog.Logger
	handlers map[string]func(payload string)
}

// NewListener listens on the channels that handlers names. A handler must not block.
func NewListener(url string, log *slog.Logger, handlers map[string]func(payload string)) *Listener {
	return &Listener{url: url, log: log, handlers: handlers}
}

// Run listens until ctx ends, and connects again whenever the connection breaks.
func (l *Listener) Run(ctx context.Context) error {
	for {
		err := l.listen(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l.log.Warn("notifications interrupted, polling goes on", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(listenRetry):
		}
	}
}

func (l *Listener) listen(ctx context.Context) error {
	config, err := pgx.ParseConfig(l.url)
	if err != nil {
		return fmt.Errorf("read database URL: %w", err)
	}
	config.ConnectTimeout = connectTimeout
	session, err := prepareSession(config, map[string]string{"role": engineRole, "application_name": "kapsel listener"})
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connect listener: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := session(ctx, conn); err != nil {
		return fmt.Errorf("begin listener's session: %w", err)
	}
	for channel := range l.handlers {
		if _, err := conn.Exec(ctx, "listen "+pgx.Identifier{channel}.Sanitize()); err != nil {
			return fmt.Errorf("listen on %s: %w", channel, err)
		}
	}
	for _, handle := range l.handlers {
		handle("")
	}
	for {
		waitCtx, cancel := context.WithTimeout(ctx, listenProbe)
		notification, err := conn.WaitForNotification(waitCtx)
		timedOut := waitCtx.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			l.handlers[notification.Channel](notification.Payload)
		case timedOut:
			if err := conn.Ping(ctx); err != nil {
				return fmt.Errorf("probe listener: %w", err)
			}
		default:
			return fmt.Errorf("wait for notification: %w", err)
		}
	}
}
