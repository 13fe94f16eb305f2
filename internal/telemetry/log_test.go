package telemetry

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func lines(t *testing.T, text string) (lines []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		lines = append(lines, fields)
	}
	return lines
}

func TestLineAboutAnEventHasItsIDAsCorrelationID(t *testing.T) {
	var out bytes.Buffer
	log := NewJSON(&out, NewLevels(slog.LevelInfo))
	log.With("component", "delivery").Info("attempted", "event_id", "evt_1", "attempt", 2)
	log.Info("refused", "correlation_id", "told", "event_id", "evt_2")
	log.Info("ready", "took", 1500*time.Microsecond)
	got := lines(t, out.String())
	if got[2]["took"] != "1.5ms" {
		t.Errorf("a duration is written as %v", got[2]["took"])
	}
	if got[0]["correlation_id"] != "evt_1" || got[1]["correlation_id"] != "told" || got[2]["correlation_id"] != nil {
		t.Errorf("correlation ids: %v", got)
	}
}

func put(t *testing.T, l *Levels, body string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	l.ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/loglevel", strings.NewReader(body)))
	return w.Code, w.Body.String()
}

func TestLevelOfOneComponentChangesWhileItRuns(t *testing.T) {
	var out bytes.Buffer
	levels := NewLevels(slog.LevelInfo)
	log := NewJSON(&out, levels)
	sealer, claimer := log.With("component", "sealer", "log_id", 1), log.With("component", "claimer")
	said := func() string {
		out.Reset()
		sealer.Debug("s")
		claimer.Debug("c")
		log.Debug("l")
		var text string
		for _, line := range lines(t, out.String()) {
			text += line["msg"].(string)
		}
		return text
	}
	for _, step := range []struct{ body, want string }{
		{`{"component":"sealer","level":"debug"}`, "s"},
		{`{"level":"DEBUG"}`, "scl"},
		{`{"component":"claimer","level":"error"}`, "sl"},
		{`{"component":"sealer","level":""}`, "sl"},
		{`{"level":"warn"}`, ""},
		{`{"component":"claimer"}`, ""},
	} {
		if status, body := put(t, levels, step.body); status != http.StatusOK {
			t.Fatalf("%s: %d %s", step.body, status, body)
		}
		if got := said(); got != step.want {
			t.Errorf("after %s: %q is written, want %q", step.body, got, step.want)
		}
	}
	w := httptest.NewRecorder()
	levels.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/loglevel", nil))
	if want := `{"default":"warn","components":{"claimer":"warn","sealer":"warn"}}` + "\n"; w.Body.String() != want {
		t.Errorf("shown: %s, want %s", w.Body, want)
	}
}

func TestWrongChangeOfALevelIsRefused(t *testing.T) {
	levels := NewLevels(slog.LevelInfo)
	NewJSON(io.Discard, levels).With("component", "sealer")
	for _, body := range []string{
		``, `null!`, `{"level":"loud"}`, `{}`, `{"component":"nobody","level":"debug"}`, `{"components":"sealer"}`,
		`{"component":"sealer","level":"` + strings.Repeat("x", 2<<10) + `"}`,
	} {
		if status, text := put(t, levels, body); status != http.StatusBadRequest || len(text) > 300 {
			t.Errorf("%.60s: %d %s", body, status, text)
		}
	}
	if got := levels.of(nil); got != slog.LevelInfo {
		t.Errorf("the level is %v", got)
	}
	w := httptest.NewRecorder()
	levels.ServeHTTP(w, httptest.NewRequest(http.MethodDelete, "/loglevel", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("DELETE: %d", w.Code)
	}
}

func BenchmarkSilentLine(b *testing.B) {
	log := NewJSON(io.Discard, NewLevels(slog.LevelInfo)).With("component", "delivery")
	b.ReportAllocs()
	for b.Loop() {
		if log.Enabled(b.Context(), slog.LevelDebug) {
			log.Debug("attempted")
		}
	}
}
