package delivery

import "time"

// breakerState is the state of a circuit breaker, numbered as in kapsel.v1.BreakerState.
type breakerState int16

const (
	breakerClosed   breakerState = 1 // deliveries flow
	breakerOpen     breakerState = 2 // nothing is sent before probeAt
	breakerHalfOpen breakerState = 3 // probes succeed, one after the other
)

// breakerRules say when a breaker changes its state.
type breakerRules struct {
	// So many failures in a row open it, or twice as many where most of the results before were good: at a destination that
	// fails three times in ten, five in a row come by chance every few hundred attempts, and ten hardly ever.
	maxFailures int
	// So do failures that are half of the results within window, if these are at least minResults.
	window     time.Duration
	minResults int
	// The first pause, and the longest: each is twice as long as the one before, and up to a tenth longer at random, so that
	// destinations that fell together are not all probed together. After a good probe the next one is the first again.
	pause, maxPause time.Duration
	// So many probes in a row must succeed.
	successes int
}

// DefaultBreakerPause is how long a breaker stays open at first.
const DefaultBreakerPause = 30 * time.Second

func newBreakerRules(pause time.Duration) breakerRules {
	return breakerRules{
		maxFailures: 5, window: 30 * time.Second, minResults: 10,
		pause: pause, maxPause: max(10*time.Minute, pause), successes: 3,
	}
}

// signal is what an attempt says of its destination.
type signal int

const (
	// noSignal: nothing. It asked us to slow down, or it was not our destination that failed.
	noSignal signal = iota
	goodSignal
	badSignal
)

// breaker is the circuit breaker of a destination, as one node sees it. It is pure: it is told the time and its randomness.
// The zero value must be reset before use.
type breaker struct {
	state     breakerState
	failures  int       // in a row, while closed
	worked    time.Time // when the latest attempt began that succeeded while closed
	recent    recent
	pauses    int       // in a row, without a success between them
	successes int       // of probes, in a row
	probeAt   time.Time // when the next probe may begin; while one is under way anywhere, when it is given up
	probing   time.Time // when this node's probe began; zero: it makes none
}

func (b *breaker) reset() { *b = breaker{state: breakerClosed} }

// closed is a breaker that its probes have closed. They count in its window: without them a destination that fails three times
// in ten would open it again in one case of six, by five failures among the first ten results.
func (r breakerRules) closed(now time.Time) breaker {
	b := breaker{state: breakerClosed}
	for range r.successes {
		b.recent.add(r.window, goodSignal, now)
	}
	return b
}

// note takes the result of an attempt that began at started, and reports whether the breaker changed. While the breaker is
// not closed, only this node's probe counts: other attempts that end now began before it opened. rnd is in [0,1).
func (b *breaker) note(rules breakerRules, s signal, started, now time.Time, rnd float64) (changed bool) {
	if b.state == breakerClosed {
		return b.noteClosed(rules, s, started, now, rnd)
	}
	if b.state != breakerHalfOpen || b.probing.IsZero() || started.Before(b.probing) {
		return false
	}
	b.probing = time.Time{}
	switch s {
	case goodSignal:
		if b.successes++; b.successes >= rules.successes {
			*b = rules.closed(now)
		} else {
			b.probeAt = now
		}
	case badSignal:
		if b.pauses++; b.successes > 0 { // it works now and then
			b.pauses = 1
		}
		b.open(rules, now, rnd)
	case noSignal:
		b.open(rules, now, rnd)
	}
	return true
}

func (b *breaker) noteClosed(rules breakerRules, s signal, started, now time.Time, rnd float64) (changed bool) {
	if s == noSignal {
		return false
	}
	b.recent.add(rules.window, s, now)
	if s == goodSignal {
		b.failures = 0
		if started.After(b.worked) {
			b.worked = started
		}
		return false
	}
	// In a row are attempts as they began: of a hundred that were sent together, the ten that time out end last and together.
	if !started.Before(b.worked) {
		b.failures++
	}
	good, bad := b.recent.sum(rules.window, now)
	maxFailures := rules.maxFailures
	if good+bad >= rules.minResults && good > bad {
		maxFailures *= 2
	}
	if b.failures < maxFailures && (good+bad < rules.minResults || bad < good) {
		return false
	}
	b.pauses = 1
	b.open(rules, now, rnd)
	return true
}

func (b *breaker) open(rules breakerRules, now time.Time, rnd float64) {
	b.state, b.failures, b.worked, b.recent, b.successes = breakerOpen, 0, time.Time{}, recent{}, 0
	b.probeAt = now.Add(rules.pauseAfter(b.pauses, rnd))
}

// beginProbe says that this node makes the next probe, and gives it up at giveUp.
func (b *breaker) beginProbe(now, giveUp time.Time) {
	b.state, b.probing, b.probeAt = breakerHalfOpen, now, giveUp
}

// pauseAfter is the length of pause number n, from 1.
func (r breakerRules) pauseAfter(n int, rnd float64) time.Duration {
	pause := r.pause
	for ; n > 1 && pause < r.maxPause; n-- {
		pause *= 2
	}
	pause = min(pause, r.maxPause)
	return pause + time.Duration(rnd*0.1*float64(pause))
}

// recentSlots is how finely the window slides.
const recentSlots = 6

// recent counts results within a sliding window, in slots of a sixth of it.
type recent struct {
	slots [recentSlots]struct {
		number    int64 // of the slot since 1970
		good, bad int32
	}
}

func (r *recent) add(window time.Duration, s signal, now time.Time) {
	number := now.UnixNano() / int64(window/recentSlots)
	slot := &r.slots[number%recentSlots]
	if slot.number != number {
		slot.number, slot.good, slot.bad = number, 0, 0
	}
	if s == goodSignal {
		slot.good++
	} else {
		slot.bad++
	}
}

func (r *recent) sum(window time.Duration, now time.Time) (good, bad int) {
	number := now.UnixNano() / int64(window/recentSlots)
	for i := range r.slots {
		if age := number - r.slots[i].number; age >= 0 && age < recentSlots {
			good += int(r.slots[i].good)
			bad += int(r.slots[i].bad)
		}
	}
	return good, bad
}
