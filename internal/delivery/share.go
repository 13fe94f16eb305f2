package delivery

import (
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/route"
)

// What a lane with a rate holds ahead of its sends, in time at that rate. What is more stays in the queue, where every node
// finds it. New deliveries get less than a claim may bring, so that they never keep out what has waited in the queue.
const (
	maxAheadNew     = 2 * time.Second
	maxAheadClaimed = 4 * time.Second
)

// SetNodes says how many nodes are alive. Limits of a destination hold over all of them, and each node keeps to its share.
func (d *Dispatcher) SetNodes(n int) { d.nodes.Store(int64(n)) }

func (d *Dispatcher) liveNodes() int { return max(1, int(d.nodes.Load())) }

// inFlightShare is how many attempts this node may have in flight: at least one.
func (d *Dispatcher) inFlightShare(destination *route.Destination) int {
	nodes := d.liveNodes()
	return max(1, (destination.MaxInFlight+nodes-1)/nodes)
}

// interval is the time between two attempts of this node at its share of the destination's rate.
func (d *Dispatcher) interval(destination *route.Destination) time.Duration {
	return time.Second * time.Duration(d.liveNodes()) / time.Duration(destination.RatePerSecond)
}

// laneRoom is how many more deliveries of a destination this node may take: from the queue, or of those just born.
func (d *Dispatcher) laneRoom(destination *route.Destination, born bool) int {
	l := d.lane(destination.ID)
	held := l.held.Load()
	bound, ahead := int64(maxHeldLane), maxAheadNew
	if !born {
		bound, ahead = maxHeldLane+maxClaim, maxAheadClaimed
	}
	room := bound - held
	if destination.RatePerSecond > 0 {
		waiting := held - l.inFlight.Load()
		room = min(room, max(1, int64(ahead/d.interval(destination)))-waiting)
	}
	return int(room)
}

// FullDestinations are those of which this node should claim no more.
func (d *Dispatcher) FullDestinations(snapshot *route.Snapshot) []uuid.UUID {
	full := []uuid.UUID{}
	d.lanes.Range(func(key, value any) bool {
		destinationID := key.(uuid.UUID)
		if destination := snapshot.Destination(destinationID); destination == nil {
			if value.(*lane).held.Load() >= maxHeldLane {
				full = append(full, destinationID)
			}
		} else if d.laneRoom(destination, false) <= 0 {
			full = append(full, destinationID)
		}
		return true
	})
	return full
}
