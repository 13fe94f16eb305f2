package delivery

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

// health keeps an account of each destination: its circuit breaker and its figures, as this node sees them. The holder
// shares them with the other nodes; the way of a delivery only touches memory.
type health struct {
	rules breakerRules
	gates atomic.Int64 // number of accounts whose gate is shut: as long as there is none, nobody need look

	mu       sync.RWMutex
	accounts map[uuid.UUID]*account
}

func newHealth() *health {
	return &health{rules: newBreakerRules(DefaultBreakerPause), accounts: make(map[uuid.UUID]*account)}
}

// account is what this node knows of a destination.
type account struct {
	tenantID, destinationID uuid.UUID
	shut                    atomic.Bool // the breaker is not closed: nothing but probes is sent

	mu         sync.Mutex
	breaker    breaker
	generation int64        // of the breaker that the database has, as far as this node knows
	shared     breakerState // and its state
	changed    bool         // this node's breaker has changed since
	diagnosis  string       // of the last failure
	figures    figures
	current    traffic
	previous   traffic // the minute before, until it is written
	inFlight   int     // as it was written last
	wrote      time.Time
}

// figures are what this node has seen and not written: a success and the failures after it, or failures only.
type figures struct {
	successAt    time.Time
	failures     int32
	failingSince time.Time
	failureID    uuid.UUID
	failureAt    time.Time
}

func (f *figures) empty() bool {
	return f.successAt.IsZero() && f.failures == 0 && f.failureID == uuid.Nil
}

// before puts what was seen earlier in front.
func (f *figures) before(later figures) figures {
	merged := later
	if later.failureID == uuid.Nil {
		merged.failureID, merged.failureAt = f.failureID, f.failureAt
	}
	if later.successAt.IsZero() {
		merged.successAt = f.successAt
		merged.failures += f.failures
		if f.failures > 0 {
			merged.failingSince = f.failingSince
		}
	}
	return merged
}

// isShut reports whether a destination gets nothing but probes.
func (h *health) isShut(destinationID uuid.UUID) bool {
	if h.gates.Load() == 0 {
		return false
	}
	a := h.find(destinationID)
	return a != nil && a.shut.Load()
}

// pauses is how many pauses in a row the breaker of a destination has made, 0 when it is closed.
func (h *health) pauses(destinationID uuid.UUID) int {
	if !h.isShut(destinationID) {
		return 0
	}
	a := h.find(destinationID)
	a.mu.Lock()
	defer a.mu.Unlock()
	return max(1, a.breaker.pauses)
}

// shutDestinations are those that get nothing but probes.
func (h *health) shutDestinations() []uuid.UUID {
	if h.gates.Load() == 0 {
		return nil
	}
	var shut []uuid.UUID
	for _, a := range h.all() {
		if a.shut.Load() {
			shut = append(shut, a.destinationID)
		}
	}
	return shut
}

// note takes the result of an attempt that this node made.
func (h *health) note(destination *route.Destination, attempt *ledger.Attempt) {
	if attempt.Outcome == leafv1.Outcome_OUTCOME_UNKNOWN || attempt.Failure == leafv1.Failure_FAILURE_CONFIGURATION {
		return // it says nothing of the destination
	}
	now, succeeded := time.Now(), attempt.Outcome == leafv1.Outcome_OUTCOME_SUCCEEDED
	a := h.account(destination.TenantID, destination.ID)
	a.mu.Lock()
	defer a.mu.Unlock()
	if succeeded {
		a.figures.successAt, a.figures.failures = now, 0
	} else {
		if a.figures.failures++; a.figures.failures == 1 {
			a.figures.failingSince = now
		}
		a.figures.failureID, a.figures.failureAt = attempt.ID, now
		a.diagnosis = ownWords(attempt)
	}
	a.turnMinute(now)
	a.current.add(succeeded, attempt.Duration)
	if a.breaker.note(h.rules, signalOf(destination.Retry, attempt), attempt.StartedAt, now, rand.Float64()) {
		a.changed = true
		h.setGate(a)
	}
}

// turnMinute begins a new minute's traffic if it is time. The account is locked.
func (a *account) turnMinute(now time.Time) {
	if minute := now.Unix() / 60; minute != a.current.minute {
		a.previous, a.current = a.current, traffic{minute: minute}
	}
}

// signalOf says what an attempt means for the breaker. Every answer but 2xx is a failure, as is none: whether a 404 means a
// wrong deployment or a wrong event cannot be told, and what is held is not lost. Three answers are not. 429 asks for less,
// and its Retry-After is kept. 410 disables the destination. And a status that its owner calls fatal is an answer to one
// delivery: the destination works.
func signalOf(p route.RetryPolicy, attempt *ledger.Attempt) signal {
	switch {
	case attempt.Outcome == leafv1.Outcome_OUTCOME_SUCCEEDED:
		return goodSignal
	case attempt.StatusCode == http.StatusTooManyRequests || attempt.StatusCode == http.StatusGone:
		return noSignal
	case attempt.StatusCode != 0 && slices.Contains(p.FatalStatuses, attempt.StatusCode):
		return goodSignal
	default:
		return badSignal
	}
}

// setGate makes the gate follow the breaker. The account is locked.
func (h *health) setGate(a *account) {
	shut := a.breaker.state != breakerClosed
	if a.shut.Swap(shut) == shut {
		return
	}
	if shut {
		h.gates.Add(1)
	} else {
		h.gates.Add(-1)
	}
}

// account returns that of a destination, and opens one if there is none.
func (h *health) account(tenantID, destinationID uuid.UUID) *account {
	a := h.find(destinationID)
	if a != nil {
		return a
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if a = h.accounts[destinationID]; a == nil {
		a = &account{tenantID: tenantID, destinationID: destinationID, shared: breakerClosed}
		a.breaker.reset()
		h.accounts[destinationID] = a
	}
	return a
}

// find returns the account of a destination, nil when there is none.
func (h *health) find(destinationID uuid.UUID) *account {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.accounts[destinationID]
}

func (h *health) all() []*account {
	h.mu.RLock()
	defer h.mu.RUnlock()
	all := make([]*account, 0, len(h.accounts))
	for _, a := range h.accounts {
		all = append(all, a)
	}
	return all
}

// forget closes the accounts of destinations that are no longer there.
func (h *health) forget(snapshot *route.Snapshot) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for destinationID, a := range h.accounts {
		if snapshot.Destination(destinationID) == nil {
			delete(h.accounts, destinationID)
			a.mu.Lock()
			a.breaker.reset()
			h.setGate(a)
			a.mu.Unlock()
		}
	}
}

// adopt takes over the breaker of another node, or what its owner did. What the database has is never older than what this node
// knows, unless the database was set back, by a failover to a standby that was behind: then that is what nodes agree on.
func (h *health) adopt(a *account, state breakerState, pauses, successes int, probeIn time.Duration, generation int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if generation == a.generation {
		return
	}
	a.generation, a.shared, a.changed = generation, state, false
	now, before := time.Now(), a.breaker.state
	a.breaker.reset()
	switch {
	case state != breakerClosed:
		a.breaker.state, a.breaker.pauses, a.breaker.successes = state, pauses, successes
		a.breaker.probeAt = now.Add(probeIn)
	case before != breakerClosed:
		a.breaker = h.rules.closed(now)
	}
	h.setGate(a)
}

// maxDiagnosisBytes bounds what is stored of a diagnosis with a destination's health.
const maxDiagnosisBytes = 500

func (a *account) cleanDiagnosis() string { return store.CleanText(a.diagnosis, maxDiagnosisBytes) }
