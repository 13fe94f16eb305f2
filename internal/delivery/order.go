package delivery

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

// What is ordered by a key is born waiting for its turn, and the database decides whose turn it is: the first of a key is
// taken when nothing of the key is under way. Whenever a node has recorded a result or committed a new delivery of a key,
// it tries to take the key's first one, so that a key goes on without a pause. A look at all keys finds what was left
// behind by a node that was lost, or by a cancellation.

const (
	turnsInterval = time.Second
	maxTurnKeys   = 1000 // of one look
	// What may be noted between two takes; the look at all keys finds what is more.
	maxTurnNotes = 8192
)

// turnMoment is when deliveries are due that wait for their turn: never. It is before heldFrom, and CommitEvents writes it.
var turnMoment = time.Date(2999, time.January, 1, 0, 0, 0, 0, time.UTC)

// turn is a key of a destination.
type turn struct {
	destinationID uuid.UUID
	key           string
}

// turns notes the keys of which the first delivery may have its turn.
type turns struct {
	mu    sync.Mutex
	noted map[turn]struct{}
	wake  chan struct{}
}

func newTurns() *turns { return &turns{noted: make(map[turn]struct{}), wake: make(chan struct{}, 1)} }

// NoteTurn says that something of an ordering key was committed or recorded. It does not block.
func (d *Dispatcher) NoteTurn(destinationID uuid.UUID, orderKey []byte) {
	if d.elsewhere {
		return // the look at all keys of those who send finds it
	}
	d.turns.mu.Lock()
	if len(d.turns.noted) < maxTurnNotes {
		d.turns.noted[turn{destinationID, string(orderKey)}] = struct{}{}
	}
	d.turns.mu.Unlock()
	select {
	case d.turns.wake <- struct{}{}:
	default:
	}
}

func (t *turns) take() map[turn]struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	noted := t.noted
	t.noted = make(map[turn]struct{})
	return noted
}

// takeTurns takes the first deliveries of the keys that were noted.
func (c *Claimer) takeTurns(ctx context.Context) error {
	var keys []turn
	for key := range c.dispatcher.turns.take() {
		keys = append(keys, key)
	}
	return c.claimTurns(ctx, keys)
}

// lookForTurns looks at the next page of all keys, once in an interval.
func (c *Claimer) lookForTurns(ctx context.Context) error {
	if time.Since(c.looked) < turnsInterval {
		return nil
	}
	c.looked = time.Now()
	rows, err := c.db.OrderKeys(ctx, c.db.Engine(), store.OrderKeysParams{
		TurnMoment: turnMoment, MaxKeys: maxTurnKeys, AfterDestinationID: c.lookedAt.destinationID, AfterOrderKey: []byte(c.lookedAt.key),
	})
	if err != nil {
		return fmt.Errorf("look for ordered deliveries: %w", err)
	}
	c.lookedAt = turn{}
	if len(rows) == maxTurnKeys {
		c.lookedAt = turn{rows[len(rows)-1].DestinationID, string(rows[len(rows)-1].OrderKey)}
	}
	var keys []turn
	var held store.HoldTurnsParams
	snapshot := c.routes.Snapshot()
	for _, row := range rows {
		destination := snapshot.Destination(row.DestinationID)
		switch {
		case !row.Waits:
		case destination != nil && destination.Active && c.dispatcher.health.isShut(row.DestinationID):
			held.DestinationIds, held.OrderKeys = append(held.DestinationIds, row.DestinationID), append(held.OrderKeys, row.OrderKey)
			held.HeldUntils = append(held.HeldUntils, HeldUntil(row.DestinationID))
		default:
			keys = append(keys, turn{row.DestinationID, string(row.OrderKey)})
		}
	}
	return errors.Join(c.holdTurns(ctx, held), c.claimTurns(ctx, keys))
}

// holdTurns has deliveries held whose turn it would be, of destinations whose circuit breakers are open. What has failed of
// these may be given up, or due in hours: a probe must not wait for that.
func (c *Claimer) holdTurns(ctx context.Context, held store.HoldTurnsParams) error {
	if len(held.OrderKeys) == 0 {
		return nil
	}
	held.TurnMoment = turnMoment
	if _, err := c.db.HoldTurns(ctx, c.db.Engine(), held); err != nil {
		return fmt.Errorf("hold ordered deliveries: %w", err)
	}
	return nil
}

// claimTurns takes the first delivery of each key that has room in its lane, unless something of the key is under way.
func (c *Claimer) claimTurns(ctx context.Context, keys []turn) error {
	snapshot := c.routes.Snapshot()
	free := min(maxClaim, c.dispatcher.Room())
	room := make(map[uuid.UUID]int)
	var destinationIDs []uuid.UUID
	var orderKeys [][]byte
	for _, key := range keys {
		left, known := room[key.destinationID]
		if !known {
			left = c.turnRoom(snapshot, key.destinationID)
		}
		room[key.destinationID] = left - 1
		if left > 0 && len(orderKeys) < free {
			destinationIDs = append(destinationIDs, key.destinationID)
			orderKeys = append(orderKeys, []byte(key.key))
		}
	}
	if len(orderKeys) == 0 {
		return nil
	}
	started := time.Now()
	claiming, cancel := outlasting(ctx)
	defer cancel()
	claimed, err := c.db.ClaimTurns(claiming, c.db.Engine(), store.ClaimTurnsParams{
		NodeID: c.nodeID, LeaseSeconds: c.lease.Seconds(), DestinationIds: destinationIDs, OrderKeys: orderKeys, TurnMoment: turnMoment,
	})
	if err != nil {
		return fmt.Errorf("claim ordered deliveries: %w", err)
	}
	if len(claimed) == 0 {
		return nil
	}
	rows := make([]store.ClaimDueRow, len(claimed))
	for i, row := range claimed {
		rows[i] = store.ClaimDueRow(row)
	}
	return c.handOver(ctx, snapshot, rows, started, false)
}

// turnRoom is how many deliveries of a destination may be taken. A deleted one's go the way to their dead letters.
func (c *Claimer) turnRoom(snapshot *route.Snapshot, destinationID uuid.UUID) int {
	destination := snapshot.Destination(destinationID)
	switch {
	case destination == nil:
		return maxClaim
	case !destination.Active || c.dispatcher.health.isShut(destinationID):
		return 0
	default:
		return c.dispatcher.laneRoom(destination, false)
	}
}
