package chaos

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// harm is a kind of failure from outside.
type harm struct {
	what    target
	ailment Ailment // of a link
}

func (h harm) String() string {
	if h.what == databaseLink {
		return "database " + string(h.ailment)
	}
	return "sink " + string(h.ailment)
}

type target int

const (
	node target = iota
	database
	databaseLink // of one node
	sinkLink     // of all nodes
)

var harms = []harm{
	{what: node}, {what: database},
	{databaseLink, Slow}, {databaseLink, Resetting}, {databaseLink, Cut},
	{sinkLink, Slow}, {sinkLink, Resetting}, {sinkLink, Cut}, {sinkLink, Refusing},
}

// blow is one failure, when so many webhooks are acknowledged.
type blow struct {
	harm
	after int
	which int           // of the nodes or of the sinks
	lasts time.Duration // of a link's ailment
}

func (b blow) describe() string {
	switch b.what {
	case node:
		return fmt.Sprintf("after %d acks: node %d killed", b.after, b.which)
	case database:
		return fmt.Sprintf("after %d acks: database restarted without a goodbye", b.after)
	case databaseLink:
		return fmt.Sprintf("after %d acks: link of node %d to the database %s for %v", b.after, b.which, b.ailment, b.lasts)
	case sinkLink:
		return fmt.Sprintf("after %d acks: link to sink %d %s for %v", b.after, b.which, b.ailment, b.lasts)
	}
	panic("no such target")
}

const (
	// Acks between two blows: in long runs, where all that a blow does is to have its time.
	usualStep = 3000
	// outage is longer than a webhook is held and than a node may be silent. Only long runs have some.
	outage = 8 * time.Second
)

// stormPlan draws blows: all kinds once, in an order of chance, and so on until nine tenths of the webhooks are
// acknowledged. However few webhooks there are, each kind comes once.
func stormPlan(r *Random, webhooks, nodes, sinks int, long bool) []blow {
	last := webhooks * 9 / 10
	step := max(2, min(usualStep, last/(len(harms)+1)))
	var plan []blow
	for after := step; after < last; {
		for _, i := range r.Perm(len(harms)) {
			if after >= last && len(plan) >= len(harms) {
				break
			}
			b := blow{harm: harms[i], after: after, lasts: time.Second + time.Duration(r.IntN(2000))*time.Millisecond}
			switch b.what {
			case sinkLink:
				b.which = r.IntN(sinks)
			case node, databaseLink:
				b.which = r.IntN(nodes)
			case database:
			}
			if long && b.ailment == Cut && r.IntN(4) == 0 {
				b.lasts = outage
			}
			plan = append(plan, b)
			after += step*3/4 + r.IntN(step/2)
		}
	}
	return plan
}

// ailing makes links ill for a time, each with one ailment after the other.
type ailing struct {
	mu    sync.Mutex
	links map[*Link]*sync.Mutex
	under sync.WaitGroup
}

func (a *ailing) suffer(t *testing.T, link *Link, ailment Ailment, lasts time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.links == nil {
		a.links = make(map[*Link]*sync.Mutex)
	}
	if a.links[link] == nil {
		a.links[link] = new(sync.Mutex)
	}
	turn := a.links[link]
	a.under.Go(func() {
		turn.Lock()
		defer turn.Unlock()
		if err := link.Suffer(ailment); err != nil {
			t.Error(err)
		}
		time.Sleep(lasts)
		if err := link.Heal(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
