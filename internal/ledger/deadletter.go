package ledger

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// scanPage is how many dead letters are looked at in one statement.
	scanPage = 1000
	// What a count does at most while its caller waits: a second or two of work, by the index alone or by reading leaves.
	maxCounted  = 1_000_000
	maxLookedAt = 50_000
)

// The times that PostgreSQL and a UUIDv7 can both hold.
var (
	firstTime = time.Unix(0, 0)
	lastTime  = time.UnixMilli(1<<47 - 1)
)

// DeadLetters selects dead letters of one tenant: those that meet every condition of a filter.
type DeadLetters struct {
	params   store.FindDeadLettersParams
	failures []leafv1.Failure
}

// SelectDeadLetters reads a filter; nil selects all. A time beyond what can be stored stands for the end of all time.
func SelectDeadLetters(tenantID uuid.UUID, filter *kapselv1.DeadLetterFilter) DeadLetters {
	p := store.FindDeadLettersParams{
		TenantID: tenantID, DeadFrom: firstTime, DeadBefore: lastTime, AfterIndex: -1,
		EndpointIds: parseAll(id.Endpoint, filter.GetEndpointIds()), DestinationIds: parseAll(id.Destination, filter.GetDestinationIds()),
		Reasons: []int16{}, EventTypes: []string{}, EventTypePrefixes: []string{}, MaxRows: scanPage,
	}
	if t := filter.GetDead().GetStartTime(); t != nil {
		p.DeadFrom = clampTime(t)
	}
	if t := filter.GetDead().GetEndTime(); t != nil {
		p.DeadBefore = clampTime(t)
	}
	for _, reason := range filter.GetReasons() {
		p.Reasons = append(p.Reasons, int16(reason))
	}
	for _, text := range filter.GetEventTypes() {
		if prefix, found := strings.CutSuffix(text, "*"); found {
			p.EventTypePrefixes = append(p.EventTypePrefixes, prefix)
		} else {
			p.EventTypes = append(p.EventTypes, text)
		}
	}
	return DeadLetters{params: p, failures: filter.GetFailures()}
}

// parseAll reads ids; one that cannot be an id stands for nothing, but still filters.
func parseAll(kind id.Kind, texts []string) []uuid.UUID {
	ids := make([]uuid.UUID, len(texts))
	for i, text := range texts {
		ids[i], _ = kind.Parse(text)
	}
	return ids
}

func clampTime(t *timestamppb.Timestamp) time.Time {
	if at := t.AsTime(); at.Before(lastTime) {
		return at
	}
	return lastTime
}

// Page lists those below a leaf index, the newest first, at most maxRows of them. It looks at scanPage dead letters at
// most, so a page may be short, and next says below which index to go on; more is false at the end.
func (s DeadLetters) Page(ctx context.Context, db *store.Queries, tx store.DBTX, before int64, maxRows int) (rows []store.ListDeadLettersRow, last map[uuid.UUID]store.Attempt, next int64, more bool, err error) {
	limit := maxRows + 1
	if len(s.failures) > 0 {
		limit = scanPage
	}
	p := s.params
	found, err := db.ListDeadLetters(ctx, tx, store.ListDeadLettersParams{
		TenantID: p.TenantID, AfterIndex: -1, BeforeIndex: before, DeadFrom: p.DeadFrom, DeadBefore: p.DeadBefore,
		EndpointIds: p.EndpointIds, DestinationIds: p.DestinationIds, Reasons: p.Reasons,
		EventTypes: p.EventTypes, EventTypePrefixes: p.EventTypePrefixes, MaxRows: int32(limit),
	})
	if err != nil {
		return nil, nil, 0, false, fmt.Errorf("list dead letters: %w", err)
	}
	ids := make([]uuid.UUID, len(found))
	for i, row := range found {
		ids[i] = row.DeadLetterID
	}
	if last, err = s.lastAttempts(ctx, db, tx, ids); err != nil {
		return nil, nil, 0, false, err
	}
	for _, row := range found {
		if len(rows) == maxRows {
			return rows, last, next, true, nil
		}
		next = row.LeafIndex
		if s.failed(last, row.DeadLetterID) {
			rows = append(rows, row)
		}
	}
	return rows, last, next, len(found) == limit, nil
}

// scan reads at most scanPage of those from after on, in the order of the log, that nothing repeats yet. next says after
// which index to go on; more is false at the end.
func (s DeadLetters) scan(ctx context.Context, db *store.Queries, tx store.DBTX, after, before int64, maxRows int) (rows []store.FindDeadLettersRow, next int64, more bool, err error) {
	limit := maxRows
	if len(s.failures) > 0 {
		limit = scanPage
	}
	p := s.params
	p.AfterIndex, p.BeforeIndex, p.Fresh, p.MaxRows = after, before, true, int32(limit)
	found, err := db.FindDeadLetters(ctx, tx, p)
	if err != nil {
		return nil, 0, false, fmt.Errorf("find dead letters: %w", err)
	}
	var last map[uuid.UUID]store.Attempt
	if len(s.failures) > 0 {
		ids := make([]uuid.UUID, len(found))
		for i, row := range found {
			ids[i] = row.DeadLetterID
		}
		if last, err = s.lastAttempts(ctx, db, tx, ids); err != nil {
			return nil, 0, false, err
		}
	}
	next = after
	for _, row := range found {
		if len(rows) == maxRows {
			return rows, next, true, nil
		}
		next = row.LeafIndex
		if s.failed(last, row.DeadLetterID) {
			rows = append(rows, row)
		}
	}
	return rows, next, len(found) == limit, nil
}

// Count counts those below a leaf index that nothing repeats yet, up to maxCounted, in one statement. With a filter by
// failure it looks at the leaves of the oldest maxLookedAt only. So its work is bounded, and it may count too few.
func (s DeadLetters) Count(ctx context.Context, db *store.Queries, tx store.DBTX, before int64) (n int64, err error) {
	if len(s.failures) == 0 {
		p := s.params
		n, err = db.CountDeadLetters(ctx, tx, store.CountDeadLettersParams{
			TenantID: p.TenantID, BeforeIndex: before, DeadFrom: p.DeadFrom, DeadBefore: p.DeadBefore,
			EndpointIds: p.EndpointIds, DestinationIds: p.DestinationIds, Reasons: p.Reasons,
			EventTypes: p.EventTypes, EventTypePrefixes: p.EventTypePrefixes, MaxRows: maxCounted,
		})
		if err != nil {
			return 0, fmt.Errorf("count dead letters: %w", err)
		}
		return n, nil
	}
	after, more := int64(-1), true
	for looked := 0; more && looked < maxLookedAt; looked += scanPage {
		var rows []store.FindDeadLettersRow
		if rows, after, more, err = s.scan(ctx, db, tx, after, before, scanPage); err != nil {
			return 0, err
		}
		n += int64(len(rows))
	}
	return n, nil
}

// failed reports whether the last attempt failed in one of the ways asked for. The way stands in the leaf alone.
func (s DeadLetters) failed(last map[uuid.UUID]store.Attempt, deliveryID uuid.UUID) bool {
	if len(s.failures) == 0 {
		return true
	}
	row, found := last[deliveryID]
	leaf := new(leafv1.Leaf)
	return found && proto.Unmarshal(row.Leaf, leaf) == nil && slices.Contains(s.failures, leaf.GetAttempt().GetFailure())
}

func (s DeadLetters) lastAttempts(ctx context.Context, db *store.Queries, tx store.DBTX, deliveryIDs []uuid.UUID) (map[uuid.UUID]store.Attempt, error) {
	if len(deliveryIDs) == 0 {
		return nil, nil
	}
	since := lastTime
	for _, deliveryID := range deliveryIDs {
		if at := id.Time(deliveryID).Add(-clockSlack); at.Before(since) {
			since = at
		}
	}
	rows, err := db.LastAttempts(ctx, tx, s.params.TenantID, deliveryIDs, since)
	if err != nil {
		return nil, fmt.Errorf("read last attempts of dead letters: %w", err)
	}
	last := make(map[uuid.UUID]store.Attempt, len(rows))
	for _, row := range rows {
		last[row.DeliveryID] = row
	}
	return last, nil
}
