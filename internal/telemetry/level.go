package telemetry

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	// maxComponents is far above what a node has: names are constants of the code.
	maxComponents = 256
	maxLevelBytes = 1 << 10
	// follows says that a component has no level of its own.
	follows = math.MinInt64
)

// Levels says from which level on lines are written, by component, and changes that while the program runs.
type Levels struct {
	base       slog.LevelVar
	mu         sync.Mutex
	components map[string]*level
}

// level of a component.
type level struct{ own atomic.Int64 }

// NewLevels makes levels that are all the same at first.
func NewLevels(base slog.Level) *Levels {
	l := &Levels{components: make(map[string]*level)}
	l.base.Set(base)
	return l
}

func (l *Levels) logger(inner slog.Handler, correlate bool) *slog.Logger {
	return slog.New(&handler{Handler: inner, levels: l, correlate: correlate})
}

func (l *Levels) of(c *level) slog.Level {
	if c != nil {
		if own := c.own.Load(); own != follows {
			return slog.Level(own)
		}
	}
	return l.base.Level()
}

// component returns the level of a component, nil beyond the bound.
func (l *Levels) component(name string) *level {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.components[name]
	if c == nil && len(l.components) < maxComponents {
		c = new(level)
		c.own.Store(follows)
		l.components[name] = c
	}
	return c
}

// shownLevels is what GET answers.
type shownLevels struct {
	Default    string            `json:"default"`
	Components map[string]string `json:"components"`
}

// change is what PUT asks for. Without a component it is the level of all that have none of their own; without a level the
// component follows that one again.
type change struct {
	Component string `json:"component"`
	Level     string `json:"level"`
}

// ServeHTTP answers GET with all levels, and PUT with them after a change.
func (l *Levels) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodPut:
		var c change
		decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLevelBytes))
		decoder.DisallowUnknownFields()
		err := decoder.Decode(&c)
		if err != nil {
			err = fmt.Errorf(`want {"component":"sealer","level":"debug"}: %w`, err)
		} else {
			err = l.Set(c.Component, c.Level)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
	default:
		w.Header().Set("Allow", "GET, PUT")
		http.Error(w, "GET shows the levels, PUT changes one", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(l.shown())
}

// Set changes the level of a component, or of all that have none of their own.
func (l *Levels) Set(component, text string) error {
	var wanted slog.Level
	if text != "" || component == "" {
		switch strings.ToLower(text) {
		case "debug", "info", "warn", "error":
			wanted.UnmarshalText([]byte(text)) // cannot fail
		default:
			return fmt.Errorf("level %.20q: want debug, info, warn or error, or nothing to let a component follow the default", text)
		}
	}
	if component == "" {
		l.base.Set(wanted)
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.components[component]
	switch {
	case c == nil:
		return fmt.Errorf("there is no component %.40q: want one of %s", component, strings.Join(slices.Sorted(maps.Keys(l.components)), ", "))
	case text == "":
		c.own.Store(follows)
	default:
		c.own.Store(int64(wanted))
	}
	return nil
}

func (l *Levels) shown() shownLevels {
	l.mu.Lock()
	defer l.mu.Unlock()
	shown := shownLevels{Default: lower(l.base.Level()), Components: make(map[string]string, len(l.components))}
	for name, c := range l.components {
		shown.Components[name] = lower(l.of(c))
	}
	return shown
}

func lower(level slog.Level) string { return strings.ToLower(level.String()) }
