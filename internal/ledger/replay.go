package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/encoding/protojson"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	replayInterval = 200 * time.Millisecond
	// A step makes what half a second of the rate allows, at most so many: its locks are held for some ten milliseconds.
	maxReplayStep  = 1000
	stepsPerSecond = 2
	maxReplayWait  = 5 * time.Second
)

// What a replay shows of a step that failed. The details are in this node's log: they may name what is not the tenant's.
const (
	filterUnreadable = "its filter is not one that this version of the server can read; it goes on once one that can is there"
	stepFailed       = "its last step failed, and is tried again; the server's log says why"
)

var errFilterUnreadable = errors.New("filter cannot be read")

// Replayer makes the deliveries of bulk replays. A step is one transaction: it locks the replay's row, makes some
// deliveries and moves the row's cursor past their dead letters. So a crash neither loses nor doubles any, the lock
// is all the lease that is needed, and whichever node is there goes on where the last one stopped, at the replay's pace.
//
// A dead letter that something repeats already is passed over, so that overlapping replays repeat it once; when the
// delivery that repeats it dies too, that one's own dead letter may be replayed.
type Replayer struct {
	db  *store.DB
	log *slog.Logger
}

// NewReplayer makes the component. All nodes may run it at once.
func NewReplayer(db *store.DB, log *slog.Logger) *Replayer { return &Replayer{db: db, log: log} }

// Run makes steps as they become due until ctx ends.
func (r *Replayer) Run(ctx context.Context) error {
	failures := 0
	for {
		worked, err := r.step(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		wait := replayInterval
		switch {
		case err != nil:
			failures++
			wait = min(replayInterval<<min(failures, 10), maxReplayWait)
			r.log.Warn("step of a replay not made, trying again", "error", err)
		case worked:
			failures, wait = 0, 0
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// step makes the next step of a replay that is due, if there is one. One whose step fails is put off, so that the next call
// turns to another.
func (r *Replayer) step(ctx context.Context) (worked bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	var replay store.Replay
	err = pgx.BeginFunc(ctx, r.db.Engine(), func(tx pgx.Tx) (err error) {
		replay, err = r.db.TakeReplay(ctx, tx)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("take a replay: %w", err)
		}
		worked = true
		if err := fault.Point(fault.ReplayerStep); err != nil {
			return err
		}
		return r.advance(ctx, tx, replay)
	})
	if err == nil || !worked || errors.Is(ctx.Err(), context.Canceled) {
		return worked, err
	}
	if err := r.putOff(context.WithoutCancel(ctx), replay, err); err != nil {
		return false, err
	}
	return true, nil
}

func (r *Replayer) putOff(ctx context.Context, replay store.Replay, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, statementTimeout)
	defer cancel()
	shown := stepFailed
	if errors.Is(cause, errFilterUnreadable) {
		shown = filterUnreadable
	}
	if err := r.db.PutOffReplay(ctx, r.db.Engine(), shown, replay.TenantID, replay.ReplayID); err != nil {
		return errors.Join(cause, fmt.Errorf("put the replay off: %w", err))
	}
	r.log.Warn("step of a replay failed, it is tried again later", "replay_id", id.Replay.Text(replay.ReplayID),
		"failures", replay.Failures+1, "error", cause)
	return nil
}

func (r *Replayer) advance(ctx context.Context, tx pgx.Tx, replay store.Replay) error {
	filter := new(kapselv1.DeadLetterFilter)
	if err := protojson.Unmarshal(replay.Filter, filter); err != nil {
		return fmt.Errorf("%w: %w", errFilterUnreadable, err)
	}
	size := min(max(int(replay.RatePerSecond)/stepsPerSecond, 1), maxReplayStep)
	rows, next, more, err := SelectDeadLetters(replay.TenantID, filter).scan(ctx, r.db.Queries, tx, replay.AfterIndex, replay.BeforeIndex, size)
	if err != nil {
		return err
	}
	made := store.MakeReplayDeliveriesParams{TenantID: replay.TenantID, ReplayID: replay.ReplayID}
	passed := int64(0)
	for _, row := range rows {
		if !row.HasPayload || !row.HasDestination || row.DestinationID == nil {
			passed++
			continue
		}
		made.DeliveryIds = append(made.DeliveryIds, id.New())
		made.EventIds = append(made.EventIds, row.EventID)
		made.EndpointIds = append(made.EndpointIds, row.EndpointID)
		made.DestinationIds = append(made.DestinationIds, *row.DestinationID)
		made.ReplayOfs = append(made.ReplayOfs, row.DeadLetterID)
	}
	count := int64(0)
	if len(made.DeliveryIds) > 0 {
		if count, err = r.db.MakeReplayDeliveries(ctx, tx, made); err != nil {
			return fmt.Errorf("make %d deliveries of a replay: %w", len(made.DeliveryIds), err)
		}
	}
	err = r.db.AdvanceReplay(ctx, tx, store.AdvanceReplayParams{
		TenantID: replay.TenantID, ReplayID: replay.ReplayID, Made: count, Passed: passed,
		AfterIndex: next, WaitSeconds: float64(count) / float64(replay.RatePerSecond), Done: !more,
	})
	if err != nil {
		return fmt.Errorf("note progress of a replay: %w", err)
	}
	return nil
}

// StartReplay makes a replay of what a filter selects at this moment. A dry run counts, and stores nothing.
func StartReplay(ctx context.Context, db *store.Queries, tx store.DBTX, logID int32, tenantID uuid.UUID, filter *kapselv1.DeadLetterFilter, ratePerSecond int32, dryRun bool) (store.Replay, error) {
	before, err := db.LogSize(ctx, tx, logID)
	if err != nil {
		return store.Replay{}, fmt.Errorf("read the log's size: %w", err)
	}
	matched, err := SelectDeadLetters(tenantID, filter).Count(ctx, db, tx, before)
	if err != nil {
		return store.Replay{}, err
	}
	encoded, err := protojson.Marshal(filter)
	if err != nil {
		return store.Replay{}, fmt.Errorf("encode filter: %w", err)
	}
	if dryRun {
		return store.Replay{TenantID: tenantID, Filter: encoded, Matched: matched, RatePerSecond: ratePerSecond}, nil
	}
	replay, err := db.CreateReplay(ctx, tx, store.CreateReplayParams{
		TenantID: tenantID, ReplayID: id.New(), Filter: encoded, RatePerSecond: ratePerSecond, Matched: matched, BeforeIndex: before,
	})
	if err != nil {
		return store.Replay{}, fmt.Errorf("create a replay: %w", err)
	}
	return replay, nil
}
