package ledger

import "github.com/kapsel-dev/kapsel/internal/telemetry"

// metrics are the instruments of the recorder. Without a meter they are nil, and count nothing.
type metrics struct {
	batch                    *telemetry.Timer
	leaves, retries, refused *telemetry.Count
}

// SetMeter says who shows what is counted. It belongs before Run.
func (r *Recorder) SetMeter(m *telemetry.Meter) {
	r.metrics = metrics{
		batch:   m.FastHistogram("kapsel.recorder.batch.duration", "How long it took to record a batch of results, retries included.").With(),
		leaves:  m.Counter("kapsel.recorder.leaves", "Leaves recorded: attempts and dead letters.").With(),
		retries: m.Counter("kapsel.recorder.retries", "Statements of the recorder that failed and were tried again.").With(),
		refused: m.Counter("kapsel.recorder.refused", "Results that the database refused, left to their leases.").With(),
	}
	m.Gauge("kapsel.recorder.waiting.results", "", "Results that wait to be recorded, of at most 4096; then senders wait.", func(observe telemetry.Observe) {
		observe(float64(len(r.waiting)))
	})
}
