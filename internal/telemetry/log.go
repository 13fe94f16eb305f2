// Package telemetry sets up how Kapsel tells what it does: logs, metrics and traces. It knows nothing of webhooks.
//
// Loggers are passed down as *slog.Logger with one vocabulary of attributes: component, correlation_id, event_id, delivery_id, attempt, destination_id, tenant_id, leaf_index, tree_size, error.
package telemetry

import (
	"io"
	"log/slog"
	"time"
)

// NewJSON makes the logger of a server: one JSON object a line.
func NewJSON(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level}))
}

// NewText makes the logger for people at a terminal: time of day, message, attributes.
func NewText(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level, ReplaceAttr: shorten}))
}

func shorten(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		return slog.String(a.Key, a.Value.Time().Format("15:04:05.000"))
	case slog.LevelKey:
		if level, ok := a.Value.Any().(slog.Level); ok && level <= slog.LevelInfo {
			return slog.Attr{}
		}
	}
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, a.Value.Duration().Round(10*time.Microsecond).String())
	}
	return a
}
