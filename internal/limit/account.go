package limit

import (
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/route"
)

// SecondsADay of UTC.
const SecondsADay = 24 * 60 * 60

// Day is the number of a moment's day (UTC) since 1970-01-01.
func Day(t time.Time) int32 { return int32(t.Unix() / SecondsADay) }

// Counts is what was used.
type Counts struct {
	Events, Duplicates, Refused, PayloadBytes int64
	Attempts, Delivered, DeadLettered         int64
}

func (c *Counts) add(o Counts) {
	c.Events += o.Events
	c.Duplicates += o.Duplicates
	c.Refused += o.Refused
	c.PayloadBytes += o.PayloadBytes
	c.Attempts += o.Attempts
	c.Delivered += o.Delivered
	c.DeadLettered += o.DeadLettered
}

// offered is how many webhooks came, taken in or not.
func (c *Counts) offered() int64 { return c.Events + c.Duplicates + c.Refused }

// Account is what a node knows of one tenant's use of the service.
type Account struct {
	limiter  *Limiter
	tenantID uuid.UUID

	mu     sync.Mutex
	bucket bucket
	share  share

	day        int32  // what follows is of this day
	written    Counts // over all nodes, as far as this node knows
	writing    Counts // by this node, in a statement that is under way
	pending    Counts // by this node, not written yet
	held       Counts // webhooks that wait for their commit
	earlier    Counts // by this node on an earlier day, not written yet
	earlierDay int32
}

// take spends what a webhook of so many bytes costs, or says what the tenant is over.
func (a *Account) take(limits *route.Limits, bytes int64, at time.Time) *Exceeded {
	now := at.Sub(a.limiter.started)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn(Day(at))
	exceeded := a.overQuota(limits, bytes, at)
	if exceeded == nil && limits.PerSecond > 0 {
		part := a.share.part
		if wait := a.bucket.take(now, newRate(float64(limits.PerSecond)*part, float64(limits.Burst)*part)); wait > 0 {
			exceeded = &Exceeded{Kind: Rate, Limit: int64(limits.PerSecond), Wait: wait}
		}
	}
	if exceeded != nil {
		a.pending.Refused++
		return exceeded
	}
	a.held.Events++
	a.held.PayloadBytes += bytes
	return nil
}

func (a *Account) overQuota(limits *route.Limits, bytes int64, at time.Time) *Exceeded {
	if limits.PerDay > 0 {
		if left := limits.PerDay - a.used((*Counts).events); left < 1 {
			return &Exceeded{Kind: DayWebhooks, Limit: limits.PerDay, Wait: untilTomorrow(at)}
		}
	}
	if limits.BytesPerDay > 0 {
		if left := limits.BytesPerDay - a.used((*Counts).bytes); left < bytes {
			return &Exceeded{Kind: DayBytes, Limit: limits.BytesPerDay, Remaining: max(0, left), Wait: untilTomorrow(at)}
		}
	}
	return nil
}

func (c *Counts) events() int64 { return c.Events }
func (c *Counts) bytes() int64  { return c.PayloadBytes }

// used adds up one count over all that is known of the day, what waits for a commit included.
func (a *Account) used(count func(*Counts) int64) int64 {
	return count(&a.written) + count(&a.writing) + count(&a.pending) + count(&a.held)
}

func untilTomorrow(at time.Time) time.Duration {
	return time.Unix((int64(Day(at))+1)*SecondsADay, 0).Sub(at)
}

// Outcome is what became of a webhook that an account had let in.
type Outcome int

// The outcomes.
const (
	Failed Outcome = iota // it was not stored, and may come again
	Stored
	Repeated
)

// Settle books what became of a webhook of so many bytes. A day's quota is for new events: it gets back what others held.
func (a *Account) Settle(outcome Outcome, bytes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held.Events--
	a.held.PayloadBytes -= int64(bytes)
	switch outcome {
	case Stored:
		a.pending.Events++
		a.pending.PayloadBytes += int64(bytes)
	case Repeated:
		a.pending.Duplicates++
	}
}

// recorded books results of deliveries.
func (a *Account) recorded(c Counts, at time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn(Day(at))
	a.pending.add(c)
}

// turn begins a new day. A clock that goes back does not.
func (a *Account) turn(today int32) {
	if today <= a.day {
		return
	}
	if a.pending != (Counts{}) {
		a.earlier.add(a.pending)
		a.earlierDay = a.day
	}
	a.day, a.written, a.writing, a.pending = today, Counts{}, Counts{}, Counts{}
	if a.share.seen != unseen {
		a.share.seen = 0
	}
}

// delta is what a statement adds to a day of a tenant.
type delta struct {
	account *Account
	day     int32
	counts  Counts
}

// collect appends what is not written yet, and takes it to be in a statement.
func (a *Account) collect(deltas []delta, nodes int, at time.Time) []delta {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.turn(Day(at))
	if a.earlier != (Counts{}) {
		deltas = append(deltas, delta{a, a.earlierDay, a.earlier})
		a.earlier = Counts{}
	}
	if a.pending.offered() == 0 {
		a.share.idle(nodes)
	}
	if a.pending != (Counts{}) {
		deltas = append(deltas, delta{a, a.day, a.pending})
		a.writing, a.pending = a.pending, Counts{}
	}
	return deltas
}

// wrote takes what all nodes have used, once a delta is part of that.
func (a *Account) wrote(d delta, total Counts, nodes int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d.day != a.day {
		return
	}
	a.written, a.writing = total, Counts{}
	a.share.learn(d.counts.offered(), total.offered(), nodes)
}

// unwrite takes a delta back that was not written; with lost, it may have been, and is not counted twice.
func (a *Account) unwrite(d delta, lost bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if d.day == a.day {
		a.writing = Counts{}
	}
	switch {
	case lost && d.day == a.day:
		a.written.add(d.counts) // until the next answer says what is true
	case lost:
	case d.day == a.day:
		a.pending.add(d.counts)
	default:
		a.earlier.add(d.counts)
		a.earlierDay = d.day
	}
}
