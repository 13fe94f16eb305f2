package witness

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/kapsel-dev/kapsel/internal/tlog"
)

// complainInterval bounds how often a witness that goes on failing, or a quorum that is not met, is logged.
const complainInterval = time.Minute

// Collector asks the witnesses of a policy to cosign heads, one head after the other. It is level-triggered: of the heads that
// come meanwhile, only the latest is next. It implements tlog.Witnesses.
type Collector struct {
	policy *Policy
	hold   bool
	prove  Prove
	store  Store
	log    *slog.Logger

	metrics   metrics
	published func() (tlog.Head, bool) // what is published last. Optional

	mu        sync.Mutex    // guards rounds too
	now       *round        // what witnesses are asked for; nil before the first head
	next      *round        // comes after it; nil: it is the latest
	lacking   time.Time     // since when no head has had its quorum; zero: the latest has it
	witnessed time.Time     // when the last one that has it was signed
	changed   chan struct{} // closed when any of these change
}

// round is a head that was submitted, and what witnesses made of it.
type round struct {
	head  tlog.Head
	shown bool                 // it is published
	asked []bool               // witnesses that have been asked, and have not answered
	lines [][]tlog.Cosignature // by witness
	ahead *AheadError          // the largest of what witnesses have seen instead
}

func (r *round) is(head tlog.Head) bool {
	return r != nil && r.head.Size == head.Size && r.head.Note == head.Note
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
	r := c.submit(head)
	if !c.hold || head.Size == 0 { // an empty tree commits to nothing, and some witnesses would not sign it
		return nil, nil
	}
	for {
		c.mu.Lock()
		lines, changed := slices.Concat(r.lines...), c.changed
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
		ahead := r.ahead
		c.mu.Unlock()
		if ahead != nil {
			return nil, fmt.Errorf("%w of witnesses: %w: %w", tlog.ErrNoQuorum, missing, ahead)
		}
		return nil, fmt.Errorf("%w of witnesses: %w", tlog.ErrNoQuorum, missing)
	}
}

// Ahead returns the size of the largest tree of this log that a witness has seen, if that is larger than the head that it was
// asked for last.
func (c *Collector) Ahead() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.now == nil || c.now.ahead == nil {
		return 0
	}
	return c.now.ahead.Size
}

// Published says that the head is published: its cosignatures are stored. One that was not submitted here is that of another
// node, or of this one before a restart: witnesses are asked for it too, for perhaps nobody else does any more.
func (c *Collector) Published(head tlog.Head) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range []*round{c.now, c.next} {
		if r.is(head) {
			r.shown = true
			c.broadcast()
			return
		}
	}
	if last := c.last(); head.Size > 0 && (last == nil || last.head.Size < head.Size) {
		c.enter(head).shown = true
	}
}

// submit has witnesses asked for a head. Without hold it waits for its turn while some are at work on an earlier one: were that
// one dropped, witnesses that take longer than heads come would never be in time.
func (c *Collector) submit(head tlog.Head) *round {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last := c.last(); last != nil && last.head.Note == head.Note {
		return last
	}
	return c.enter(head)
}

// enter makes a head the next one. With mu held.
func (c *Collector) enter(head tlog.Head) *round {
	if c.superseded() {
		c.lacking = time.Time{}
	}
	r := &round{head: head, asked: make([]bool, len(c.policy.clients)), lines: make([][]tlog.Cosignature, len(c.policy.clients))}
	c.next = r
	if c.hold || c.now == nil || c.finished() {
		c.advance()
	}
	return r
}

// last is what was submitted last, nil before the first head. With mu held.
func (c *Collector) last() *round {
	if c.next != nil {
		return c.next
	}
	return c.now
}

// finished reports whether nothing that matters is to come soon of those who are asked. With mu held.
func (c *Collector) finished() bool {
	return !slices.Contains(c.now.asked, true) || c.missing(c.now) == nil
}

// missing says what a head's quorum lacks, nil when it is met. With mu held.
func (c *Collector) missing(r *round) error { return c.policy.met(slices.Concat(r.lines...)) }

// advance goes on to the next head. With mu held.
func (c *Collector) advance() {
	c.now, c.next = c.next, nil
	c.judge()
	c.broadcast()
}

// judge notes whether the head has its quorum. An empty tree needs none. With mu held.
func (c *Collector) judge() {
	switch {
	case c.now.head.Size == 0:
	case c.missing(c.now) == nil:
		c.lacking, c.witnessed = time.Time{}, c.now.head.SignedAt
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

// answered takes what a witness answered, or that it failed, and goes on to the next head if one waits for that.
func (c *Collector) answered(i int, r *round, lines []tlog.Cosignature, ahead *AheadError) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.asked[i] = false
	if ahead != nil && (r.ahead == nil || r.ahead.Size < ahead.Size) {
		r.ahead = ahead
	}
	if lines != nil {
		r.lines[i] = lines
	}
	if r != c.now {
		return
	}
	if lines != nil {
		c.judge()
		c.broadcast()
	}
	if c.next != nil && c.finished() {
		c.advance()
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
		var missing error
		var size int64
		if r := c.now; r != nil && r.shown && !c.lacking.IsZero() && time.Since(c.lacking) > 2*requestTimeout {
			missing, size = c.missing(r), r.head.Size
		}
		c.mu.Unlock()
		if missing != nil && time.Since(last) > complainInterval {
			last = time.Now()
			c.log.WarnContext(ctx, "the published head lacks its quorum of witnesses", "tree_size", size, "error", missing)
		}
	}
}
