package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/kapsel-dev/kapsel/internal/tlog"
)

const (
	// A witness that fails rests before it is asked again, twice as long each time.
	minRest, maxRest = 500 * time.Millisecond, 15 * time.Second
	// refusedRest is the rest after a refusal that only people can change: an unknown log or key, a proof that is wrong.
	refusedRest = time.Minute
	// complainInterval bounds how often a witness that goes on failing, or a quorum that is not met, is logged.
	complainInterval = time.Minute
)

// Collector asks the witnesses of a policy to cosign heads. It is level-triggered: each witness is asked for the latest head only.
// It implements tlog.Witnesses.
type Collector struct {
	policy *Policy
	hold   bool
	prove  Prove
	store  Store
	log    *slog.Logger

	metrics   metrics
	published func() (tlog.Head, bool) // what is published last. Optional

	mu        sync.Mutex
	head      tlog.Head // the latest that was submitted
	round     int       // counts heads
	shown     bool      // it is published
	lacking   time.Time // since when no head has had its quorum; zero: the latest has it
	witnessed time.Time // when the last one that has it was signed
	lines     [][]tlog.Cosignature
	ahead     *AheadError   // the largest of what witnesses have seen instead
	changed   chan struct{} // closed when any of these change
}

// Store keeps cosignatures of a published head.
type Store func(ctx context.Context, treeSize int64, lines []tlog.Cosignature) error

// NewCollector makes a collector. With hold, Cosign waits for the quorum; otherwise it lets heads be published at once, and
// cosignatures follow.
func NewCollector(policy *Policy, hold bool, prove Prove, store Store, log *slog.Logger) *Collector {
	return &Collector{
		policy: policy, hold: hold, prove: prove, store: store, log: log, changed: make(chan struct{}),
		metrics: metrics{answers: make([]answers, len(policy.clients))},
	}
}

// Cosign submits a head that was signed and that nobody has seen, and waits until the quorum has cosigned it or ctx ends.
// What it returns is to be published with the head. It may be called again with the same head.
func (c *Collector) Cosign(ctx context.Context, head tlog.Head) ([]tlog.Cosignature, error) {
	c.submit(head)
	if !c.hold || head.Size == 0 { // an empty tree commits to nothing, and some witnesses would not sign it
		return nil, nil
	}
	for {
		c.mu.Lock()
		lines, changed := slices.Concat(c.lines...), c.changed
		c.mu.Unlock()
		missing := c.policy.met(lines)
		if missing == nil {
			return lines, nil
		}
		select {
		case <-changed:
			continue
		case <-ctx.Done():
		}
		c.mu.Lock()
		ahead := c.ahead
		c.mu.Unlock()
		if ahead != nil {
			return nil, fmt.Errorf("%w of witnesses: %w: %w", tlog.ErrNoQuorum, missing, ahead)
		}
		return nil, fmt.Errorf("%w of witnesses: %w", tlog.ErrNoQuorum, missing)
	}
}

// Ahead returns the size of the largest tree of this log that a witness has seen, if that is larger than the head submitted last.
func (c *Collector) Ahead() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ahead == nil {
		return 0
	}
	return c.ahead.Size
}

// Published says that the head is published: cosignatures that come from now on are stored.
func (c *Collector) Published(head tlog.Head) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.head.Size == head.Size && c.head.Note == head.Note {
		c.shown = true
		c.broadcast()
	}
}

func (c *Collector) submit(head tlog.Head) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.round > 0 && c.head.Note == head.Note {
		return
	}
	if c.superseded() {
		c.lacking = time.Time{}
	}
	c.head, c.shown, c.ahead = head, false, nil
	c.lines = make([][]tlog.Cosignature, len(c.policy.clients))
	c.round++
	c.judge()
	c.broadcast()
}

// judge notes whether the head has its quorum. An empty tree needs none. With mu held.
func (c *Collector) judge() {
	switch {
	case c.head.Size == 0:
	case c.policy.met(slices.Concat(c.lines...)) == nil:
		c.lacking, c.witnessed = time.Time{}, c.head.SignedAt
	case c.lacking.IsZero():
		c.lacking = time.Now()
	}
}

// broadcast wakes all who wait. With mu held.
func (c *Collector) broadcast() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Run asks witnesses until ctx ends, each by itself: a slow one holds up no other.
func (c *Collector) Run(ctx context.Context) error {
	var group sync.WaitGroup
	for i := range c.policy.clients {
		group.Go(func() { c.follow(ctx, i) })
	}
	c.complain(ctx)
	group.Wait()
	return nil
}

// follow brings one witness up to each head in turn.
func (c *Collector) follow(ctx context.Context, i int) {
	client := c.policy.clients[i]
	log := c.log.With("witness", client.name)
	var done, stored int // rounds
	var rest time.Duration
	var complained time.Time
	for {
		c.mu.Lock()
		head, round, shown, changed := c.head, c.round, c.shown, c.changed
		var lines []tlog.Cosignature
		if round > 0 {
			lines = c.lines[i]
		}
		c.mu.Unlock()
		var err error
		switch {
		case round > done:
			lines, err = client.cosign(ctx, head, c.prove)
			if ctx.Err() == nil {
				c.metrics.answers[i].count(err)
			}
			if err == nil {
				done, rest = round, 0
				c.arrived(i, round, lines)
				continue
			}
			var ahead *AheadError
			if errors.As(err, &ahead) {
				done = round // only a larger head can help
				c.sawAhead(round, ahead)
			}
		case shown && round > stored && len(lines) > 0:
			if err = c.store(ctx, head.Size, lines); err == nil {
				stored = round
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
				log.WarnContext(ctx, "witness has not cosigned, trying again", "tree_size", head.Size, "pause", rest, "error", err)
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

func (c *Collector) arrived(i, round int, lines []tlog.Cosignature) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.round == round {
		c.lines[i] = lines
		c.judge()
		c.broadcast()
	}
}

func (c *Collector) sawAhead(round int, ahead *AheadError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.round == round && (c.ahead == nil || c.ahead.Size < ahead.Size) {
		c.ahead = ahead
	}
}

// complain says loudly when a published head lacks its quorum. Until ctx ends.
func (c *Collector) complain(ctx context.Context) {
	ticker := time.NewTicker(complainInterval / 4)
	defer ticker.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		c.mu.Lock()
		missing, size, due := c.policy.met(slices.Concat(c.lines...)), c.head.Size, c.shown && !c.lacking.IsZero() && time.Since(c.lacking) > 2*requestTimeout
		c.mu.Unlock()
		if missing != nil && due && time.Since(last) > complainInterval {
			last = time.Now()
			c.log.WarnContext(ctx, "the published head lacks its quorum of witnesses", "tree_size", size, "error", missing)
		}
	}
}
