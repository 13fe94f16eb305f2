package server

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// anchorPage is how many events and repeats are looked at in one go.
	anchorPage = 250
	// A page of a list is given out short, with a token, when it took the looking at so many events and repeats, or the
	// reading of so many deliveries that turned out not to be asked for: a filter that meets nothing costs a bounded time.
	maxAnchors = 2000
	maxMisses  = 1000
	// maxDeliveriesOfEvent bounds what is read for one event: destinations, times how often it was replayed.
	maxDeliveriesOfEvent = 10_000
)

// ListDeliveries walks back in time. No table holds all deliveries in their order: what is live stands in the queue, which
// has its primary key alone, and what is closed in three others. But first deliveries are made with their event, and all
// others stand in redeliveries. So events and redeliveries are walked by their primary keys, the newest first, and the
// deliveries of each stretch are gathered by event. A first delivery stands in the list at its event's place.
//
// Deliveries are listed as long as their events are kept.
func (s *deliveryService) ListDeliveries(ctx context.Context, request *kapselv1.ListDeliveriesRequest) (*kapselv1.ListDeliveriesResponse, error) {
	tenantID := caller(ctx).TenantID
	page, err := readPage(request)
	if err != nil {
		return nil, err
	}
	list := deliveryList{deliveryService: s, tenantID: tenantID, page: page, states: request.States}
	if request.DestinationId != "" {
		if list.destinationID, err = id.Destination.Parse(request.DestinationId); err != nil {
			return new(kapselv1.ListDeliveriesResponse), nil
		}
	}
	err = s.DB.ReadAsTenant(ctx, tenantID, func(tx pgx.Tx) error {
		list.tx = tx
		if request.EventId == "" {
			return list.walk(ctx)
		}
		eventID, err := id.Event.Parse(request.EventId)
		if err != nil {
			return nil
		}
		return list.event(ctx, eventID)
	})
	if err != nil {
		return nil, err
	}
	return &kapselv1.ListDeliveriesResponse{Deliveries: list.found, NextPageToken: list.next}, nil
}

// deliveryList is a page in the making.
type deliveryList struct {
	*deliveryService
	tx            pgx.Tx
	tenantID      uuid.UUID
	page          page
	destinationID uuid.UUID // uuid.Nil: any
	states        []kapselv1.DeliveryState

	found  []*kapselv1.Delivery
	misses int
	next   string // token
}

// event lists the deliveries of one event.
func (l *deliveryList) event(ctx context.Context, eventID uuid.UUID) error {
	ids, err := l.deliveriesOf(ctx, l.tx, l.tenantID, eventID)
	if err != nil {
		return err
	}
	last := l.page.before
	for _, deliveryID := range ids {
		if bytes.Compare(deliveryID[:], l.page.before[:]) >= 0 {
			continue
		}
		if l.full() {
			l.next = l.page.token(last)
			return nil
		}
		if err := l.read(ctx, deliveryID); err != nil {
			return err
		}
		last = deliveryID
	}
	return nil
}

// walk lists the deliveries of all events.
func (l *deliveryList) walk(ctx context.Context) error {
	at, within := l.page.before, l.page.within
	for looked := 0; ; looked += anchorPage {
		anchors, err := l.DB.DeliveryAnchors(ctx, l.tx, l.tenantID, at, anchorPage)
		if err != nil {
			return err
		}
		found, err := l.gather(ctx, anchors)
		if err != nil {
			return err
		}
		for _, anchor := range anchors {
			if anchor.Anchor != at {
				at, within = anchor.Anchor, lastID
			}
			for _, deliveryID := range found[anchor.Anchor] {
				if bytes.Compare(deliveryID[:], within[:]) >= 0 {
					continue // of the page before
				}
				if l.full() {
					l.next = l.page.tokenWithin(at, within)
					return nil
				}
				if err := l.read(ctx, deliveryID); err != nil {
					return err
				}
				within = deliveryID
			}
			within = uuid.Nil // nothing is left at this place
		}
		if len(anchors) < anchorPage {
			return nil
		}
		if looked+anchorPage >= maxAnchors {
			l.next = l.page.tokenWithin(at, within)
			return nil
		}
	}
}

func (l *deliveryList) full() bool { return len(l.found) == int(l.page.size) || l.misses == maxMisses }

// read adds a delivery to the page if it is one that is asked for.
func (l *deliveryList) read(ctx context.Context, deliveryID uuid.UUID) error {
	delivery, err := l.readDelivery(ctx, l.tx, l.tenantID, deliveryID)
	var refused *refusal
	if errors.As(err, &refused) { // there is no such delivery: its attempts are older than what is kept
		l.misses++
		return nil
	}
	if err != nil {
		return err
	}
	if l.destinationID != uuid.Nil && delivery.DestinationId != id.Destination.Text(l.destinationID) ||
		len(l.states) > 0 && !slices.Contains(l.states, delivery.State) {
		l.misses++
		return nil
	}
	l.found = append(l.found, delivery)
	return nil
}

// live are the states of what stands in the queue: which of them it is shows when it is read.
var live = []kapselv1.DeliveryState{
	kapselv1.DeliveryState_DELIVERY_STATE_PENDING, kapselv1.DeliveryState_DELIVERY_STATE_IN_FLIGHT, kapselv1.DeliveryState_DELIVERY_STATE_HELD,
}

// wants reports whether a delivery may be asked for that is in one of some states, as far as is known before it is read.
func (l *deliveryList) wants(destinationID *uuid.UUID, in ...kapselv1.DeliveryState) bool {
	if destinationID == nil || l.destinationID != uuid.Nil && *destinationID != l.destinationID {
		return false // without a destination it is the dead letter of an event as a whole
	}
	return l.wantsState(in...)
}

func (l *deliveryList) wantsState(in ...kapselv1.DeliveryState) bool {
	return len(l.states) == 0 || slices.ContainsFunc(in, func(state kapselv1.DeliveryState) bool { return slices.Contains(l.states, state) })
}

// gather finds the deliveries of a stretch that may be asked for, by where they stand, the newest first. The queue is read
// first: what leaves it in between is then found twice, never lost.
func (l *deliveryList) gather(ctx context.Context, anchors []store.DeliveryAnchorsRow) (map[uuid.UUID][]uuid.UUID, error) {
	found := make(map[uuid.UUID][]uuid.UUID, len(anchors))
	var eventIDs []uuid.UUID // the newest first
	for _, anchor := range anchors {
		if anchor.IsRepeat {
			found[anchor.Anchor] = []uuid.UUID{anchor.Anchor}
		} else {
			eventIDs = append(eventIDs, anchor.EventID)
		}
	}
	if len(eventIDs) == 0 {
		return found, nil
	}
	oldest, newest := eventIDs[len(eventIDs)-1], eventIDs[0]
	if l.wantsState(live...) {
		queued, err := l.DB.FirstDeliveries(ctx, l.tx, store.FirstDeliveriesParams{
			TenantID: l.tenantID, EventIds: eventIDs, OldestEventID: oldest, EndID: id.Floor(id.Time(newest).Add(fanOutTime)),
		})
		if err != nil {
			return nil, err
		}
		for _, row := range queued {
			if l.wants(row.DestinationID, live...) {
				found[row.EventID] = append(found[row.EventID], row.DeliveryID)
			}
		}
	}
	if err := l.gatherClosed(ctx, eventIDs, oldest, found); err != nil {
		return nil, err
	}
	repeats, err := l.DB.RedeliveriesOfEvents(ctx, l.tx, l.tenantID, eventIDs)
	if err != nil {
		return nil, err
	}
	elsewhere := make(map[uuid.UUID]bool, len(repeats))
	for _, deliveryID := range repeats {
		elsewhere[deliveryID] = true
	}
	for _, eventID := range eventIDs {
		first := slices.DeleteFunc(found[eventID], func(deliveryID uuid.UUID) bool { return elsewhere[deliveryID] })
		newestFirst(first)
		found[eventID] = slices.Compact(first)
	}
	return found, nil
}

// gatherClosed adds what is closed of some events.
func (l *deliveryList) gatherClosed(ctx context.Context, eventIDs []uuid.UUID, oldest uuid.UUID, found map[uuid.UUID][]uuid.UUID) error {
	if l.wantsState(kapselv1.DeliveryState_DELIVERY_STATE_SUCCEEDED) {
		rows, err := l.DB.SuccessesOfEvents(ctx, l.tx, l.tenantID, eventIDs, since(oldest))
		if err != nil {
			return err
		}
		for _, row := range rows {
			leaf := new(leafv1.Leaf)
			if err := proto.Unmarshal(row.Leaf, leaf); err != nil {
				return err
			}
			// What is late closed nothing; an erased leaf does not say where its attempt went.
			destinationID := idOf(leaf.GetAttempt().GetDestinationId())
			if !leaf.GetAttempt().GetLate() && l.wants(&destinationID, kapselv1.DeliveryState_DELIVERY_STATE_SUCCEEDED) {
				found[row.EventID] = append(found[row.EventID], row.DeliveryID)
			}
		}
	}
	if l.wantsState(kapselv1.DeliveryState_DELIVERY_STATE_DEAD_LETTERED) {
		rows, err := l.DB.DeadLettersOfEvents(ctx, l.tx, l.tenantID, eventIDs)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if l.wants(row.DestinationID, kapselv1.DeliveryState_DELIVERY_STATE_DEAD_LETTERED) {
				found[row.EventID] = append(found[row.EventID], row.DeadLetterID)
			}
		}
	}
	if l.wantsState(kapselv1.DeliveryState_DELIVERY_STATE_CANCELLED) {
		rows, err := l.DB.CancellationsOfEvents(ctx, l.tx, l.tenantID, eventIDs)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if l.wants(&row.DestinationID, kapselv1.DeliveryState_DELIVERY_STATE_CANCELLED) {
				found[row.EventID] = append(found[row.EventID], row.DeliveryID)
			}
		}
	}
	return nil
}

func newestFirst(ids []uuid.UUID) {
	slices.SortFunc(ids, func(a, b uuid.UUID) int { return bytes.Compare(b[:], a[:]) })
}

// deliveriesOf are the ids of an event's deliveries, the newest first. A dead letter of the event as a whole is none.
func (a *api) deliveriesOf(ctx context.Context, tx pgx.Tx, tenantID, eventID uuid.UUID) ([]uuid.UUID, error) {
	queued, err := a.queuedDeliveries(ctx, tx, tenantID, eventID, eventID, []uuid.UUID{eventID})
	if err != nil {
		return nil, err
	}
	attempts, err := a.DB.AttemptsOfEvent(ctx, tx, store.AttemptsOfEventParams{
		TenantID: tenantID, EventID: eventID, Since: since(eventID), AfterLeafIndex: -1, MaxRows: maxDeliveriesOfEvent,
	})
	if err != nil {
		return nil, err
	}
	dead, err := a.DB.DeadLettersOfEvents(ctx, tx, tenantID, []uuid.UUID{eventID})
	if err != nil {
		return nil, err
	}
	cancelled, err := a.DB.CancellationsOfEvents(ctx, tx, tenantID, []uuid.UUID{eventID})
	if err != nil {
		return nil, err
	}
	var ids []uuid.UUID
	for _, row := range queued {
		if row.DestinationID != nil {
			ids = append(ids, row.DeliveryID)
		}
	}
	for _, row := range attempts {
		ids = append(ids, row.DeliveryID)
	}
	for _, row := range dead {
		if row.DestinationID != nil {
			ids = append(ids, row.DeadLetterID)
		}
	}
	for _, row := range cancelled {
		ids = append(ids, row.DeliveryID)
	}
	newestFirst(ids)
	return slices.Compact(ids), nil
}
