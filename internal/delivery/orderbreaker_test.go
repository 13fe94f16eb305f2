package delivery

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/uuid"
)

// What failed may be given up, or not due for hours: then what waits for its turn is all that a probe can be made with.
func TestBreakerIsProbedWithWhatWaitsForItsTurn(t *testing.T) {
	n, h := newRig(t).breakerNode(shortPause)
	sink := new(flaky)
	sink.broken.Store(true)
	destination := n.destination(newSink(t, sink.ServeHTTP).URL, 8)
	n.exec(`update destinations set retry_policy = '{"schedule":["3600s"],"maxAttempts":1,"jitter":0}'`)
	n.refresh()
	for i := range 10 {
		n.ordered(destination, fmt.Sprint(i%5), fmt.Sprint(i)) // five fail, which opens the breaker
	}
	stop := n.run()
	eventually(t, "the breaker opens", func() bool {
		n.tick(h)
		return n.count(openedEvents) == 1
	})
	sink.broken.Store(false)
	eventually(t, "what was not given up is delivered", func() bool {
		n.tick(h)
		return n.count(liveRows) == 0
	})
	stop()
}

// One that failed may come to stand behind another that was committed late. Then it waits all the same.
func TestProbeKeepsTheOrder(t *testing.T) {
	n, h := newRig(t).breakerNode(shortPause)
	sink := new(tape)
	destination := n.destination(newSink(t, sink.ServeHTTP).URL, 8)
	n.refresh()
	first, second := n.ordered(destination, "aa", "aa/0"), n.ordered(destination, "aa", "aa/1")
	n.exec(`update delivery_queue set due_at = now() + interval '1 hour' where delivery_id = $1`, first)
	n.exec(`update delivery_queue set due_at = now() where delivery_id = $1`, second)
	other := n.due(n.event("bb/0"), destination, 0, 0, uuid.Nil)
	n.fail(destination, 5)
	eventually(t, "the probe is made", func() bool {
		n.step(h)
		return n.count("select count(*) from delivery_queue where delivery_id = $1", other) == 0
	})
	n.exec(`update delivery_queue set due_at = now() where delivery_id = $1`, first)
	eventually(t, "all are delivered", func() bool {
		n.step(h)
		return n.count(liveRows) == 0
	})
	n.stop()
	if took := byKey(sink.bodies())["aa"]; !slices.Equal(took, []int{0, 1}) {
		t.Errorf("arrived: %v", took)
	}
}
