package delivery

import "time"

// burstTime is how much of a rate may be sent at once after a pause: little, so that no second gets much more than the
// rate, and more than a timer is late, so that no second gets less.
const burstTime = 100 * time.Millisecond

// pace is a token bucket, kept as the moment at which it would be empty again (the generic cell rate algorithm). The zero
// value is a full one. It is not safe for concurrent use.
type pace struct{ spent time.Time }

// take takes one token of a bucket that gains one each interval. Without one it takes nothing, and returns how long it
// will be until there is one.
func (p *pace) take(now time.Time, interval time.Duration) (wait time.Duration) {
	spent := p.spent
	if spent.Before(now) {
		spent = now
	}
	if wait := spent.Sub(now) - max(0, burstTime-interval); wait > 0 {
		return wait
	}
	p.spent = spent.Add(interval)
	return 0
}
