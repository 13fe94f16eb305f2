package delivery

import (
	"strings"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
)

const (
	failureKinds = int(leafv1.Failure_FAILURE_AUTHORIZATION) + 1
	reasonKinds  = int(leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXPIRED) + 1
)

// metrics are the instruments of delivery. Without a meter they are nil, and count nothing.
type metrics struct {
	succeeded, unknown *telemetry.Count
	failed             [failureKinds]*telemetry.Count
	good, bad          *telemetry.Timer
	delay              *telemetry.Timer
	delivered          [2]*telemetry.Count // at the first attempt, after retries
	given              [2]*telemetry.Count
	dead               [reasonKinds]*telemetry.Count
}

// SetMeter says who shows what is counted. It belongs before anything is held.
func (d *Dispatcher) SetMeter(m *telemetry.Meter) {
	attempts := m.Counter("kapsel.delivery.attempts", "Attempts, by outcome and, of those that failed, by class of failure.")
	durations := m.SlowHistogram("kapsel.delivery.attempt.duration", "How long attempts took, by outcome.")
	ended := m.Counter("kapsel.delivery.ended", "Deliveries that ended, by result, and whether they had needed more than one attempt.")
	letters := m.Counter("kapsel.delivery.dead_letters", "Dead letters, by reason.")
	t := metrics{
		succeeded: attempts.With("outcome", "succeeded", "failure", ""),
		unknown:   attempts.With("outcome", "unknown", "failure", "worker_lost"),
		good:      durations.With("outcome", "succeeded"), bad: durations.With("outcome", "failed"),
		delay: m.SlowHistogram("kapsel.delivery.first_attempt.delay", "From the receipt of a webhook to the end of its first attempt.").With(),
	}
	for i, retried := range [...]string{"no", "yes"} {
		t.delivered[i] = ended.With("result", "delivered", "retried", retried)
		t.given[i] = ended.With("result", "dead_lettered", "retried", retried)
	}
	for i := 1; i < failureKinds; i++ {
		t.failed[i] = attempts.With("outcome", "failed", "failure", label(leafv1.Failure(i).String(), "FAILURE_"))
	}
	for i := 1; i < reasonKinds; i++ {
		t.dead[i] = letters.With("reason", label(leafv1.DeadLetterReason(i).String(), "DEAD_LETTER_REASON_"))
	}
	d.metrics = t
	m.Gauge("kapsel.delivery.held.deliveries", "", "Deliveries in this node's memory, of at most 8192.", func(observe telemetry.Observe) { observe(float64(d.held.Load())) })
	m.Gauge("kapsel.delivery.held.payload", "By", "Bytes of payload in this node's memory, of at most 96 MiB.", func(observe telemetry.Observe) {
		observe(float64(d.heldBytes.Load()))
	})
	m.Gauge("kapsel.delivery.in_flight", "", "Attempts under way.", func(observe telemetry.Observe) { observe(float64(d.sending())) })
	m.Gauge("kapsel.delivery.breakers", "", "Destinations that this node has sent to, by the state of their circuit breaker.", d.health.observe)
}

// label is the name of an enum's value as a label has it.
func label(name, prefix string) string { return strings.ToLower(strings.TrimPrefix(name, prefix)) }

func (d *Dispatcher) sending() (n int64) {
	d.lanes.Range(func(_, value any) bool {
		n += value.(*lane).inFlight.Load()
		return true
	})
	return n
}

func (h *health) observe(observe telemetry.Observe) {
	var states [breakerHalfOpen + 1]float64
	for _, a := range h.all() {
		a.mu.Lock()
		states[a.breaker.state]++
		a.mu.Unlock()
	}
	observe(states[breakerClosed], "state", "closed")
	observe(states[breakerOpen], "state", "open")
	observe(states[breakerHalfOpen], "state", "half_open")
}

// sent times an attempt that this node made.
func (m *metrics) sent(job Job, attempt *ledger.Attempt) {
	if attempt.Outcome == leafv1.Outcome_OUTCOME_SUCCEEDED {
		m.good.Record(attempt.Duration)
	} else {
		m.bad.Record(attempt.Duration)
	}
	if job.Attempts == 0 {
		m.delay.Record(max(0, attempt.StartedAt.Add(attempt.Duration).Sub(job.Event.ReceivedAt)))
	}
}

// settled counts a result on its way to the ledger. Attempt is nil where there was none.
func (m *metrics) settled(job Job, attempt *ledger.Attempt, verdict ledger.Verdict) {
	number := job.Attempts
	if attempt != nil {
		number++
		switch {
		case attempt.Outcome == leafv1.Outcome_OUTCOME_SUCCEEDED:
			m.succeeded.Add(1)
		case attempt.Outcome == leafv1.Outcome_OUTCOME_UNKNOWN:
			m.unknown.Add(1)
		case int(attempt.Failure) < failureKinds:
			m.failed[attempt.Failure].Add(1)
		}
		if attempt.Late {
			return
		}
	}
	retried := 0
	if number > 1 {
		retried = 1
	}
	switch {
	case verdict.Delivered:
		m.delivered[retried].Add(1)
	case int(verdict.Dead) > 0 && int(verdict.Dead) < reasonKinds:
		m.given[retried].Add(1)
		m.dead[verdict.Dead].Add(1)
	}
}
