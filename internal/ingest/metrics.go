package ingest

import (
	"time"

	"github.com/kapsel-dev/kapsel/internal/telemetry"
)

// metrics are the instruments of intake. Without a meter they are nil, and count nothing.
type metrics struct {
	stored, defective, repeated *telemetry.Count
	committed, refused          *telemetry.Timer
	retries                     *telemetry.Count
}

// SetMeter says who shows what is counted. It belongs before Run.
func (c *Committer) SetMeter(m *telemetry.Meter) {
	events := m.Counter("kapsel.ingest.events", "Webhooks taken in, by the state in their receipt.")
	commits := m.FastHistogram("kapsel.ingest.commit.duration", "How long it took to store a batch of webhooks, retries included.")
	c.metrics = metrics{
		stored: events.With("state", "accepted"), defective: events.With("state", "dead_lettered"), repeated: events.With("state", "duplicate"),
		committed: commits.With("result", "stored"), refused: commits.With("result", "failed"),
		retries: m.Counter("kapsel.ingest.commit.retries", "Statements of intake that failed and were tried again.").With(),
	}
	m.Gauge("kapsel.ingest.waiting.webhooks", "", "Webhooks that wait for a commit, of at most 8192.", func(observe telemetry.Observe) { observe(float64(len(c.waiting))) })
	m.Gauge("kapsel.ingest.waiting.payload", "By", "Bytes of webhooks that wait for a commit, of at most 64 MiB.", func(observe telemetry.Observe) {
		observe(float64(c.waitingBytes.Load()))
	})
}

func (m *metrics) commit(started time.Time, err error) {
	if err != nil {
		m.refused.Record(time.Since(started))
		return
	}
	m.committed.Record(time.Since(started))
}

// taken counts a batch that is stored, and the repeats of its own webhooks.
func (m *metrics) taken(batch []*pending, outcomes []outcome, repeats int) {
	stored, defective := 0, 0
	for i := range batch {
		switch {
		case outcomes[i].duplicate:
			repeats++
		case outcomes[i].defective:
			defective++
		default:
			stored++
		}
	}
	m.stored.Add(stored)
	m.defective.Add(defective)
	m.repeated.Add(repeats)
}
