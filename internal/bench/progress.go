package bench

import "time"

// The stages that Config.Progress is told of, after their numbers.
const (
	stageWarmUp = "s of warm-up"
	stageLoad   = "s of load"
	stageDrain  = "webhooks sealed"
	stageProofs = "proofs"
)

// tellInterval is how often time that passes is told.
const tellInterval = 200 * time.Millisecond

// tellTime tells how many seconds of d have passed, until stop is called.
func (c Config) tellTime(stage string, d time.Duration) (stop func()) {
	began := time.Now()
	total := int64((d + time.Second - 1) / time.Second)
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(tellInterval)
		defer ticker.Stop()
		for {
			c.Progress(stage, int64(time.Since(began)/time.Second), total)
			select {
			case <-ended:
				return
			case <-ticker.C:
			}
		}
	}()
	return func() { close(ended); <-done }
}
