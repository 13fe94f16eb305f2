package retention

import (
	"time"

	"github.com/kapsel-dev/kapsel/internal/telemetry"
)

// metrics are the instruments of a keeper. Without a meter they are nil, and count nothing.
type metrics struct {
	done, failed          *telemetry.Count
	eventDays, ledgerDays *telemetry.Count
	rows                  *telemetry.Counter
}

// SetMeter says who shows what is counted. It belongs before Run.
func (k *Keeper) SetMeter(m *telemetry.Meter) {
	runs := m.Counter("kapsel.retention.runs", "Times that this node looked for what is old enough to go, by result.")
	days := m.Counter("kapsel.retention.dropped_partitions", "Partitions of a day that this node let go of, by table; those whose rows were carried over for some tenants too.")
	k.metrics = metrics{
		done: runs.With("result", "done"), failed: runs.With("result", "failed"),
		eventDays: days.With("table", "events"), ledgerDays: days.With("table", "attempts"),
		rows: m.Counter("kapsel.retention.deleted_rows", "Rows that this node deleted since they were old enough, by what they are."),
	}
	for _, what := range []string{oldEvents, oldRedeliveries, oldClosed, oldAudit} {
		k.metrics.rows.With("rows", what)
	}
	m.Gauge("kapsel.retention.last_success_age", "s", "For how long this node has not enforced retention without an error; since its start, if it never has.", func(observe telemetry.Observe) {
		observe(time.Since(time.Unix(0, k.enforced.Load())).Seconds())
	})
}

func (k *Keeper) count(now time.Time, err error) {
	if err != nil {
		k.metrics.failed.Add(1)
		return
	}
	k.metrics.done.Add(1)
	k.enforced.Store(now.UnixNano())
}
