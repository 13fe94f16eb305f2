package delivery

import (
	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/ledger"
)

// maxDetailBytes bounds what is stored for people about a destination that was disabled.
const maxDetailBytes = 1000

// disableDemand is what an attempt demanded of its destination.
type disableDemand struct {
	tenantID, eventID uuid.UUID
	disable           ledger.Disable
}

// demandDisable asks the holder to disable a destination. The first demand stands: those of attempts that were in flight
// with it add nothing. A demand that is lost with its node is made again by the next attempt.
func (d *Dispatcher) demandDisable(destinationID uuid.UUID, demand disableDemand) {
	d.demanding.Lock()
	defer d.demanding.Unlock()
	if d.demands == nil {
		d.demands = make(map[uuid.UUID]disableDemand)
	}
	if _, found := d.demands[destinationID]; !found {
		d.demands[destinationID] = demand
	}
}

func (d *Dispatcher) takeDisables() map[uuid.UUID]disableDemand {
	d.demanding.Lock()
	defer d.demanding.Unlock()
	demands := d.demands
	d.demands = nil
	return demands
}

// withdraw gives back what waits in the lanes of some destinations. What is in flight ends as it may.
func (d *Dispatcher) withdraw(destinationIDs []uuid.UUID) {
	var unsent []Job
	for _, destinationID := range destinationIDs {
		if l, found := d.lanes.Load(destinationID); found {
			unsent = append(unsent, l.(*lane).drain()...)
		}
	}
	d.giveBack(unsent)
}
