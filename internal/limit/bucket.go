package limit

import "time"

// bucket is a token bucket, kept as the moment at which it is full again (the generic cell rate algorithm, ITU-T I.371).
// Moments are durations since the start of the process, by its monotonic clock. The zero value is full.
type bucket struct{ full time.Duration }

// rate is that of a bucket.
type rate struct {
	interval time.Duration // in which it gains a token
	burst    time.Duration // in which an empty one becomes full: at least interval
}

// newRate makes one of so many tokens a second, of which a full bucket holds burst.
func newRate(perSecond, burst float64) rate {
	interval := time.Duration(float64(time.Second) / perSecond)
	return rate{interval: interval, burst: max(interval, time.Duration(burst*float64(interval)))}
}

// take takes a token. Without one it takes nothing, and returns how long it will be until there is one.
func (b *bucket) take(now time.Duration, r rate) (wait time.Duration) {
	full := max(b.full, now) + r.interval
	if wait := full - now - r.burst; wait > 0 {
		return wait
	}
	b.full = full
	return 0
}

// wait is how long it will be until there is a token, 0 when there is one.
func (b *bucket) wait(now time.Duration, r rate) time.Duration {
	return max(0, max(b.full, now)+r.interval-now-r.burst)
}
