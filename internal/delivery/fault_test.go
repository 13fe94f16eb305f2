package delivery

import (
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
)

// A delivery whose settling panics keeps its lease, gives its room back, and takes nobody with it.
func TestPanicWhileSettlingLeavesTheDeliveryToItsLease(t *testing.T) {
	n := newRig(t).node()
	schedule, err := fault.Parse("delivery.settle=panic:1")
	if err != nil {
		t.Fatal(err)
	}
	fault.Enable(schedule)
	defer fault.Enable(nil)
	event := newEvent([]byte("broken"))
	event.Defect = "no JSON"
	n.dispatcher.reserve(nil, len(event.Body))
	n.dispatcher.Hold(Job{Duty: ledger.Duty{Event: event, DeliveryID: id.New()}, LeaseEnds: time.Now().Add(DefaultLease)})
	n.stop() // waits for it
	if n.dispatcher.Room() != maxHeld || n.dispatcher.RoomBytes() != maxHeldBytes {
		t.Errorf("room for %d deliveries and %d bytes is left", n.dispatcher.Room(), n.dispatcher.RoomBytes())
	}
	if got := n.count("select count(*) from attempts"); got != 0 {
		t.Errorf("%d leaves", got)
	}
}
