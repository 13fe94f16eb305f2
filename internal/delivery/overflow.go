package delivery

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// A step of the overflow looks at so many due rows, and leaves so many of full lanes where they are: that many rows cost
	// a claim for the others a few milliseconds, and to put them off and back would cost more.
	overflowPage = 10_000
	overflowKept = 2_000
)

// putOffExcess puts off those of the claimed rows that the lanes of destinations with a rate have no room for, and returns
// the others. Their payloads need not be read, and the next claims do not meet them again.
func (c *Claimer) putOffExcess(ctx context.Context, snapshot *route.Snapshot, rows []store.ClaimDueRow) []store.ClaimDueRow {
	var room map[uuid.UUID]int
	var excess map[uuid.UUID][]store.ClaimDueRow
	kept := rows[:0:len(rows)]
	for _, row := range rows {
		if row.DestinationID != nil && row.LostOwner == nil {
			destination := snapshot.Destination(*row.DestinationID)
			if destination != nil && destination.RatePerSecond > 0 {
				left, known := room[destination.ID]
				if !known {
					left = c.dispatcher.laneRoom(destination, false)
				}
				if left <= 0 {
					if excess == nil {
						excess = make(map[uuid.UUID][]store.ClaimDueRow)
					}
					excess[destination.ID] = append(excess[destination.ID], row)
					continue
				}
				if room == nil {
					room = make(map[uuid.UUID]int)
				}
				room[destination.ID] = left - 1
			}
		}
		kept = append(kept, row)
	}
	for destinationID, rows := range excess {
		until := HeldUntil(destinationID)
		c.putOff(ctx, rows, &until)
	}
	return kept
}

// holdOverflow puts due rows of active destinations off that this node has no room for, when so many wait that claims for
// the others would wade through them. Those of a destination with a rate are put off at once: they come back by that rate.
func (h *Holder) holdOverflow(ctx context.Context, snapshot *route.Snapshot) error {
	var limited, slow []uuid.UUID
	for _, destinationID := range h.dispatcher.FullDestinations(snapshot) {
		switch destination := snapshot.Destination(destinationID); {
		case destination == nil || !destination.Active:
		case destination.RatePerSecond > 0:
			limited = append(limited, destinationID)
		default:
			slow = append(slow, destinationID)
		}
	}
	if err := h.putOffDue(ctx, limited, 0); err != nil {
		return err
	}
	return h.putOffDue(ctx, slow, overflowKept)
}

func (h *Holder) putOffDue(ctx context.Context, destinationIDs []uuid.UUID, kept int32) error {
	return holdInPages(destinationIDs, func(moments []time.Time) (int64, error) {
		held, err := h.db.HoldOverflow(ctx, h.db.Engine(), store.HoldOverflowParams{
			DestinationIds: destinationIDs, HeldUntils: moments, PageRows: overflowPage, KeepRows: kept,
		})
		if err != nil {
			return 0, fmt.Errorf("put off what full lanes have no room for: %w", err)
		}
		return held, nil
	})
}
