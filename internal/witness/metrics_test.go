package witness

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/telemetry"
	"github.com/kapsel-dev/kapsel/internal/tlog"
)

// measured is a collector with a meter.
type measured struct {
	*Collector
	t         *testing.T
	meter     *telemetry.Meter
	published atomic.Pointer[tlog.Head]
}

func measure(t *testing.T, log *testLog, policy *Policy) *measured {
	t.Helper()
	meter, err := telemetry.NewMeter("")
	if err != nil {
		t.Fatal(err)
	}
	m := &measured{Collector: NewCollector(policy, false, log.prove, new(stored).put, quiet), t: t, meter: meter}
	m.SetMeter(meter, func() (tlog.Head, bool) {
		if head := m.published.Load(); head != nil {
			return *head, true
		}
		return tlog.Head{}, false
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); m.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return m
}

// value is what a series shows, and whether it is there.
func (m *measured) value(series string) (float64, bool) {
	m.t.Helper()
	w := httptest.NewRecorder()
	m.meter.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(w.Body.String())
	if found == nil {
		return 0, false
	}
	value, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		m.t.Fatal(err)
	}
	return value, true
}

func (m *measured) await(what string, happened func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !happened(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("not within 20 s: %s", what)
		}
	}
}

const missing, headAge = "kapsel_witness_quorum_missing_seconds", "kapsel_witness_quorum_head_age_seconds"

func TestCollectorShowsAnswersAndQuorum(t *testing.T) {
	log := newLog(t, 100)
	good, bad, strict := serveWitness(t, "one.example.com", log.verifierKey()), serveWitness(t, "two.example.com", log.verifierKey()), serveWitness(t, "three.example.com", log.verifierKey())
	bad.set(unavailable)
	strict.set(func(w http.ResponseWriter) { http.Error(w, "who are you?", http.StatusForbidden) })
	m := measure(t, log, policyOf(t, 2, good, bad, strict))
	answered := func(witness, result string) float64 {
		value, shown := m.value(`kapsel_witness_answers_total{result="` + result + `",witness="` + witness + `"}`)
		if !shown {
			t.Errorf("%s of %s is not shown", result, witness)
		}
		return value
	}
	if answered("w0", "cosigned") != 0 || answered("w1", "failed") != 0 || answered("w2", "refused") != 0 || answered("w0", "ahead") != 0 {
		t.Error("answers before any head")
	}
	if value, shown := m.value(missing); shown {
		t.Errorf("a quorum is missing for %v s, and no head wants one", value)
	}

	m.submit(log.head(50))
	m.await("each witness has answered", func() bool {
		return answered("w0", "cosigned") == 1 && answered("w1", "failed") >= 1 && answered("w2", "refused") == 1
	})
	first, _ := m.value(missing)
	m.submit(log.head(60)) // a newer head that lacks it too
	if later, shown := m.value(missing); !shown || first == 0 || later <= first {
		t.Errorf("missing for %v s, and after the next head for %v s: want more", first, later)
	}
	if _, shown := m.value(headAge); shown {
		t.Error("the age of a head with a quorum is shown, and there is none")
	}

	bad.set(nil)
	m.await("the quorum is met", func() bool { value, shown := m.value(missing); return shown && value == 0 })
	if age, shown := m.value(headAge); !shown || age < 0 || age > 60 {
		t.Errorf("the head with a quorum is %v s old", age)
	}

	// Another node seals now: what this one lacks is nobody's trouble.
	good.set(unavailable)
	bad.set(unavailable)
	m.submit(log.head(70))
	if value, shown := m.value(missing); !shown || value == 0 {
		t.Errorf("missing for %v s", value)
	}
	other := log.head(80)
	m.published.Store(&other)
	if value, shown := m.value(missing); shown {
		t.Errorf("missing for %v s on a node that does not seal", value)
	}
	m.submit(log.head(90)) // it seals again
	if value, shown := m.value(missing); !shown || value > time.Minute.Seconds() {
		t.Errorf("missing for %v s, shown %v", value, shown)
	}
}
