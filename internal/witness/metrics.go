package witness

import (
	"errors"
	"time"

	"github.com/kapsel-dev/kapsel/internal/telemetry"
	"github.com/kapsel-dev/kapsel/internal/tlog"
)

// metrics are the instruments of a collector. Without a meter they are nil, and count nothing.
type metrics struct {
	answers []answers // of each witness
}

type answers struct{ cosigned, ahead, refused, failed *telemetry.Count }

// SetMeter says who shows what is counted, and which head is published last, whoever signed it. It belongs before the first
// head. The label witness is a name of the policy, which has at most 32.
func (c *Collector) SetMeter(m *telemetry.Meter, published func() (tlog.Head, bool)) {
	counts := m.Counter("kapsel.witness.answers", "What witnesses of the policy answered, by witness and result.")
	for i, client := range c.policy.clients {
		c.metrics.answers[i] = answers{
			cosigned: counts.With("witness", client.name, "result", "cosigned"), ahead: counts.With("witness", client.name, "result", "ahead"),
			refused: counts.With("witness", client.name, "result", "refused"), failed: counts.With("witness", client.name, "result", "failed"),
		}
	}
	c.published = published
	m.Gauge("kapsel.witness.quorum_missing", "s", "For how long no head of this node has had its quorum of witnesses; 0 while the newest has it. Nothing where another node seals.",
		func(observe telemetry.Observe) {
			c.mu.Lock()
			defer c.mu.Unlock()
			switch {
			case c.now == nil || c.now.head.Size == 0 || c.superseded():
			case c.lacking.IsZero():
				observe(0)
			default:
				observe(time.Since(c.lacking).Seconds())
			}
		})
	m.Gauge("kapsel.witness.quorum_head_age", "s", "Age of the newest head of this node that got its quorum of witnesses.", func(observe telemetry.Observe) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.witnessed.IsZero() {
			observe(time.Since(c.witnessed).Seconds())
		}
	})
}

// superseded reports whether another node has published a head since this one submitted its last: then that is none of this
// node's business any more. With mu held.
func (c *Collector) superseded() bool {
	own := c.last()
	if c.published == nil || own == nil {
		return false
	}
	head, known := c.published()
	return known && (head.Size > own.head.Size || head.Size == own.head.Size && !own.is(head))
}

func (a *answers) count(err error) {
	var ahead *AheadError
	var answer *statusError
	switch {
	case err == nil:
		a.cosigned.Add(1)
	case errors.As(err, &ahead):
		a.ahead.Add(1)
	case errors.As(err, &answer) && answer.refuses():
		a.refused.Add(1)
	default:
		a.failed.Add(1)
	}
}
