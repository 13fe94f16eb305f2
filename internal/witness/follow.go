package witness

import (
	"context"
	"errors"
	"time"

	"github.com/kapsel-dev/kapsel/internal/tlog"
)

const (
	// A witness that fails rests before it is asked again, twice as long each time.
	minRest, maxRest = 500 * time.Millisecond, 15 * time.Second
	// refusedRest is the rest after a refusal that only people can change: an unknown log or key, a proof that is wrong.
	refusedRest = time.Minute
)

// follow brings one witness up to each head in turn.
func (c *Collector) follow(ctx context.Context, i int) {
	client := c.policy.clients[i]
	log := c.log.With("witness", client.name)
	var done, unstored *round // the last that it is through with, and one whose cosignatures are not stored
	var rest time.Duration
	var complained time.Time
	for {
		c.mu.Lock()
		r, changed := c.now, c.changed
		asks, stores := r != done, unstored != nil && unstored.shown
		if asks && !stores {
			r.asked[i] = true
		}
		c.mu.Unlock()
		var err error
		switch {
		case stores:
			err = c.store(ctx, unstored.head.Size, unstored.lines[i])
			if err == nil || asks { // a head that waits is not held up for long
				unstored = nil
			}
			if err == nil {
				continue
			}
		case asks:
			var lines []tlog.Cosignature
			lines, err = client.cosign(ctx, r.head, c.prove)
			if ctx.Err() == nil {
				c.metrics.answers[i].count(err)
			}
			var ahead *AheadError
			if err == nil || errors.As(err, &ahead) { // only a larger head can help one that is ahead
				done = r
			}
			c.answered(i, r, lines, ahead)
			if err == nil {
				rest, unstored = 0, r
				continue
			}
		}
		var timer <-chan time.Time
		if err != nil && ctx.Err() == nil {
			rest = nextRest(rest, err)
			timer = time.After(rest)
			changed = nil // a new head is no reason to hurry
			if time.Since(complained) > complainInterval {
				complained = time.Now()
				log.WarnContext(ctx, "witness has not cosigned, trying again", "tree_size", r.head.Size, "pause", rest, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-timer:
		}
	}
}

// nextRest is how long a witness rests that rested and then failed.
func nextRest(rested time.Duration, err error) time.Duration {
	rest := min(max(minRest, 2*rested), maxRest)
	var ahead *AheadError
	var answer *statusError
	switch {
	case errors.As(err, &ahead):
		return minRest
	case !errors.As(err, &answer):
	case answer.wait > 0:
		return max(rest, min(answer.wait, refusedRest))
	case answer.refuses():
		return refusedRest
	}
	return rest
}
