// Package delivery brings events to destinations: a lane for each destination, an HTTP send, a verdict by retry policy,
// and the result handed to the ledger.
//
// Work comes in two ways. Intake hands over what this node leased to itself at birth, in memory. The claimer takes due
// rows of the queue: retries, what found no room at birth, and what a lost node held. Every duty that a node holds has a
// lease, and nothing is sent that cannot end before its lease does.
package delivery

import (
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
)

// Job is a duty that this node holds a lease for.
type Job struct {
	ledger.Duty
	// Destination is nil when the event has a defect: there is nothing to send, only a dead letter to write.
	Destination *route.Destination
	// OrderKey is the hash of the key that the destination orders this delivery by. Nil: it is not ordered.
	OrderKey []byte
	// LeaseEnds is when the lease ends by this node's clock, or a little earlier.
	LeaseEnds time.Time
	// LostOwner is the node whose lease ran out in the middle of an attempt; uuid.Nil otherwise.
	LostOwner uuid.UUID
	// Probe says that it is sent though its destination's circuit breaker is open.
	Probe bool
}

// DefaultLease is how long a node holds a delivery: the longest send (30 s), and time to wait for it and to record it.
const DefaultLease = 75 * time.Second

// sendMargin is what must be left of a lease beyond the destination's timeout when a send begins: time to record.
const sendMargin = 10 * time.Second
