// Package telemetry sets up how Kapsel tells what it does: logs, metrics and traces. It knows nothing of webhooks.
//
// Loggers are passed down as *slog.Logger with one vocabulary of attributes: component, correlation_id, tenant_id, event_id,
// delivery_id, destination_id, attempt, leaf_index, tree_size, error. A line about an event has its id as correlation_id too,
// so that one search finds all that happened to it; a line about a refused request has the id that its caller was told.
package telemetry

import (
	"context"
	"io"
	"log/slog"
	"math"
	"time"
)

// everything lets a handler pass all that its Levels let through.
const everything = slog.Level(math.MinInt)

// NewJSON makes the logger of a server: one JSON object a line.
func NewJSON(w io.Writer, levels *Levels) *slog.Logger {
	return levels.logger(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: everything, ReplaceAttr: withUnits}), true)
}

// NewText makes the logger for people at a terminal: time of day, message, attributes.
func NewText(w io.Writer, levels *Levels) *slog.Logger {
	return levels.logger(slog.NewTextHandler(w, &slog.HandlerOptions{Level: everything, ReplaceAttr: shorten}), false)
}

// withUnits writes a duration with its unit: a bare number would leave it open.
func withUnits(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, a.Value.Duration().String())
	}
	return a
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

// handler lets through what the level of its component allows.
type handler struct {
	slog.Handler
	levels    *Levels
	component *level // nil: the logger is nobody's in particular
	correlate bool   // lines about an event get its id as correlation_id
}

func (h *handler) Enabled(_ context.Context, at slog.Level) bool {
	return at >= h.levels.of(h.component)
}

func (h *handler) Handle(ctx context.Context, record slog.Record) error {
	if h.correlate {
		eventID, correlated := "", false
		record.Attrs(func(a slog.Attr) bool {
			switch a.Key {
			case "event_id":
				eventID = a.Value.String()
			case "correlation_id":
				correlated = true
			}
			return true
		})
		if eventID != "" && !correlated {
			record = record.Clone()
			record.AddAttrs(slog.String("correlation_id", eventID))
		}
	}
	return h.Handler.Handle(ctx, record)
}

func (h *handler) WithAttrs(attributes []slog.Attr) slog.Handler {
	copied := *h
	for _, a := range attributes {
		if a.Key == "component" {
			copied.component = h.levels.component(a.Value.String())
		}
	}
	copied.Handler = h.Handler.WithAttrs(attributes)
	return &copied
}

func (h *handler) WithGroup(name string) slog.Handler {
	copied := *h
	copied.Handler = h.Handler.WithGroup(name)
	return &copied
}
