package server

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

// describeEvent makes the resource of a row, without its headers.
func describeEvent(row store.ListEventsRow, fates map[uuid.UUID]*fate) *kapselv1.Event {
	_, key, _ := strings.Cut(row.DedupKey, ":") // stored with where it came from
	event := &kapselv1.Event{
		Id: id.Event.Text(row.EventID), EndpointId: id.Endpoint.Text(row.EndpointID),
		ReceivedAt: timestamppb.New(row.ReceivedAt), State: fates[row.EventID].state(row.Defect != ""),
		EventType: row.EventType, ContentType: row.ContentType,
		PayloadBytes: int64(row.BodyBytes), PayloadSha256: row.BodySHA256,
		DeduplicationKey: key, Verification: row.Verification, SourceAddress: row.SourceAddress, Defect: row.Defect,
	}
	if row.Erased {
		event.PayloadGone, event.PayloadSha256 = true, nil
	}
	return event
}

// describeHeaders reads header lines as they are stored, "Name: value\r\n" each.
func describeHeaders(lines []byte) []*kapselv1.Header {
	var headers []*kapselv1.Header
	for line := range bytes.SplitSeq(lines, []byte("\r\n")) {
		name, value, found := bytes.Cut(line, []byte(": "))
		if !found {
			continue
		}
		h := &kapselv1.Header{Name: string(name), Value: string(value)}
		if !utf8.Valid(value) {
			h.Value, h.RawValue = strings.ToValidUTF8(h.Value, "\uFFFD"), value
		}
		headers = append(headers, h)
	}
	return headers
}

// fate is what has become of an event, as the tables say: the queue holds what is live, the ledger what succeeded, and
// dead letters and cancellations the rest.
type fate struct {
	live bool
	// closed says what became of each destination that has nothing live: the best of what its deliveries came to, since a
	// replay that succeeded makes up for a first delivery that did not. The key is the delivery's where the destination is
	// not known any more.
	closed map[uuid.UUID]ending
	// whole says that the event as a whole was given up.
	whole bool
}

// ending is how a delivery ended, the best one last.
type ending int

const (
	cancelled ending = iota + 1
	deadLettered
	delivered
)

func (f *fate) close(destinationID uuid.UUID, how ending) {
	if f.closed == nil {
		f.closed = make(map[uuid.UUID]ending)
	}
	f.closed[destinationID] = max(f.closed[destinationID], how)
}

// state sums up. An event with a defect is dead even in the moment before its dead letter is written.
func (f *fate) state(defect bool) kapselv1.EventState {
	if f == nil {
		f = new(fate)
	}
	worst := delivered
	for _, how := range f.closed {
		if how == deadLettered || worst == delivered {
			worst = how
		}
	}
	switch {
	case defect || f.whole:
		return kapselv1.EventState_EVENT_STATE_DEAD_LETTERED
	case f.live:
		return kapselv1.EventState_EVENT_STATE_PENDING
	case len(f.closed) == 0:
		return kapselv1.EventState_EVENT_STATE_UNMATCHED
	case worst == deadLettered:
		return kapselv1.EventState_EVENT_STATE_DEAD_LETTERED
	case worst == cancelled:
		return kapselv1.EventState_EVENT_STATE_CANCELLED
	}
	return kapselv1.EventState_EVENT_STATE_DELIVERED
}

// clockSlack is how far a node's clock may be ahead of the database's where rows are looked up by the time in an id: as far as one
// that has local time for UTC. Rows that are missed would look like never recorded.
const clockSlack = 24 * time.Hour

// fanOutTime is far above what passes between the making of an event's id and of its first deliveries' ids, which the same
// node makes one after the other.
const fanOutTime = 10 * time.Second

// queuedDeliveries reads what is live of events, the oldest and the newest of which are given.
func (a *api) queuedDeliveries(ctx context.Context, tx pgx.Tx, tenantID, oldest, newest uuid.UUID, eventIDs []uuid.UUID) ([]store.QueuedDeliveriesRow, error) {
	return a.DB.QueuedDeliveries(ctx, tx, store.QueuedDeliveriesParams{
		TenantID: tenantID, EventIds: eventIDs, OldestEventID: oldest, EndID: id.Floor(id.Time(newest).Add(fanOutTime)),
	})
}

// since is a time before which nothing that came after the making of u was recorded.
func since(u uuid.UUID) time.Time { return id.Time(u).Add(-clockSlack) }

// fates reads what became of events. The queue is read first: what leaves it between two statements is then counted as
// live, never lost.
func (a *api) fates(ctx context.Context, tx pgx.Tx, tenantID uuid.UUID, eventIDs []uuid.UUID) (map[uuid.UUID]*fate, error) {
	fates := make(map[uuid.UUID]*fate, len(eventIDs))
	if len(eventIDs) == 0 {
		return fates, nil
	}
	inOrder := slices.Clone(eventIDs)
	slices.SortFunc(inOrder, func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
	oldest := inOrder[0]
	// Events that are far apart are looked up apart: what else is live between them may be the whole queue.
	for first, i := 0, 0; i < len(inOrder); i++ {
		fates[inOrder[i]] = new(fate)
		if i+1 < len(inOrder) && id.Time(inOrder[i+1]).Sub(id.Time(inOrder[i])) <= fanOutTime {
			continue
		}
		queued, err := a.queuedDeliveries(ctx, tx, tenantID, inOrder[first], inOrder[i], inOrder[first:i+1])
		if err != nil {
			return nil, err
		}
		for _, row := range queued {
			fates[row.EventID].live = true
		}
		first = i + 1
	}
	successes, err := a.DB.SuccessesOfEvents(ctx, tx, tenantID, eventIDs, since(oldest))
	if err != nil {
		return nil, err
	}
	for _, row := range successes {
		leaf := new(leafv1.Leaf)
		destinationID := row.DeliveryID
		if err := proto.Unmarshal(row.Leaf, leaf); err == nil && leaf.GetAttempt() != nil {
			if leaf.GetAttempt().Late {
				continue // it changed nothing
			}
			destinationID = idOf(leaf.GetAttempt().DestinationId)
		}
		fates[row.EventID].close(destinationID, delivered)
	}
	dead, err := a.DB.DeadLettersOfEvents(ctx, tx, tenantID, eventIDs)
	if err != nil {
		return nil, err
	}
	for _, row := range dead {
		if row.DestinationID == nil {
			fates[row.EventID].whole = true
			continue
		}
		fates[row.EventID].close(*row.DestinationID, deadLettered)
	}
	cancellations, err := a.DB.CancellationsOfEvents(ctx, tx, tenantID, eventIDs)
	if err != nil {
		return nil, err
	}
	for _, row := range cancellations {
		fates[row.EventID].close(row.DestinationID, cancelled)
	}
	return fates, nil
}

// idOf reads an id of a leaf: 16 bytes, or none.
func idOf(b []byte) uuid.UUID {
	u, err := uuid.FromBytes(b)
	if err != nil {
		return uuid.Nil
	}
	return u
}
