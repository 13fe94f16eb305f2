package limit

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// Whatever comes, and whenever: a bucket gives no more than its burst and what it gained, and who waits as told gets in.
func TestBucketKeepsItsRateAndItsWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perSecond := rapid.Float64Range(0.1, 100_000).Draw(t, "rate")
		burst := rapid.Float64Range(1, 1000).Draw(t, "burst")
		r := newRate(perSecond, burst)
		var b bucket
		start := time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "start"))
		now, taken := start, 0.0
		for range rapid.IntRange(1, 200).Draw(t, "webhooks") {
			wait := b.take(now, r)
			if wait == 0 {
				taken++
			} else {
				if b.wait(now, r) != wait {
					t.Fatalf("told to wait %v, and %v", wait, b.wait(now, r))
				}
				if after := b; after.take(now+wait, r) != 0 {
					t.Fatalf("waited %v in vain", wait)
				}
				if before := b; before.take(now+wait-1, r) == 0 {
					t.Fatalf("%v is longer than need be", wait)
				}
			}
			if most := float64(now-start+r.burst)/float64(r.interval) + 0.001; taken > most {
				t.Fatalf("%v taken after %v, at most %v may be", taken, now-start, most)
			}
			now += time.Duration(rapid.Int64Range(0, 2*int64(r.interval)).Draw(t, "pause"))
		}
	})
}
