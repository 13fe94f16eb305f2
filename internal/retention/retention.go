// Package retention lets go of what has been kept for long enough: payloads after days, the ledger after years. It stands
// beside a webhook's way and touches nothing that is younger than a day.
//
// Whole days are dropped with their partition. A day that some tenants keep for longer is carried over for them; a tenant that
// keeps payloads for less than the others has its rows deleted, some at a time. What may be missing is written down before
// it goes (retention_horizons, logs.first_index), so that fsck can tell it from damage. Hashes in the log's tiles stay, and
// leaves stay for as long as the ledger, so a proof outlives its payload.
//
// Every node that seals runs a Keeper; steps that two of them make at once are made once.
package retention

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kapsel-dev/kapsel/store"
)

const (
	// DefaultPayloads and DefaultLedger are for how long payloads and the ledger are kept.
	DefaultPayloads = 30 * day
	DefaultLedger   = 7 * 365 * day

	// MinPayloads keeps today's and yesterday's partition out of reach, MinLedger the events of what is left of the ledger in it.
	MinPayloads = day
	MinLedger   = 30 * day

	day      = 24 * time.Hour
	interval = time.Hour
	// maxClockDifference is how far the database's clock and this node's may differ. One of them is wrong then, and what is
	// dropped by a wrong one does not come back.
	maxClockDifference = day
	// Rows go in steps that are short enough to be in nobody's way.
	maxRows    = 5_000
	maxTenants = 1_000
)

// What rows are that go by themselves.
const (
	oldEvents       = "events"
	oldRedeliveries = "redeliveries"
	oldClosed       = "closed_deliveries" // dead letters and cancellations; the larger number of both is counted
	oldAudit        = "audit_entries"
)

// Keeper enforces retention. Make it with New.
type Keeper struct {
	db               *store.DB
	payloads, ledger time.Duration
	log              *slog.Logger
	clock            func() time.Time // this node's
	metrics          metrics
	enforced         atomic.Int64 // when it was enforced last, or the keeper was made, in Unix nanoseconds
}

// New makes a keeper of payloads and of the ledger, for so long. A tenant may keep its payloads for another time.
func New(db *store.DB, payloads, ledger time.Duration, log *slog.Logger) *Keeper {
	k := &Keeper{db: db, payloads: payloads, ledger: ledger, log: log, clock: time.Now}
	k.enforced.Store(time.Now().UnixNano())
	return k
}

// Run enforces retention within a minute, and then about once an hour until ctx ends. What fails is tried again an hour later:
// most of all a lock that intake would have had to wait for.
func (k *Keeper) Run(ctx context.Context) error {
	timer := time.NewTimer(rand.N(time.Minute)) // nodes that start together do not all look at once
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
		if err := k.EnforceNow(ctx); err != nil && ctx.Err() == nil {
			k.log.Warn("retention not enforced, trying again in an hour", "error", err)
		}
		timer.Reset(interval - interval/10 + rand.N(interval/5))
	}
}

// EnforceNow is Enforce at the database's time. Where this node has another day, nothing is let go of.
func (k *Keeper) EnforceNow(ctx context.Context) error {
	now, err := k.db.DatabaseTime(ctx, k.db.Engine())
	if err != nil {
		err = fmt.Errorf("read the database's time: %w", err)
	} else if ahead := now.Sub(k.clock()).Round(time.Second); ahead.Abs() > maxClockDifference {
		err = fmt.Errorf("the database's clock is %v ahead of this node's: one of them is wrong, and nothing is dropped by a wrong clock", ahead)
	}
	if err != nil {
		k.count(now, err)
		return err
	}
	return k.Enforce(ctx, now)
}

// Enforce lets go of what is old enough at now. What one part cannot do does not hold up the others.
func (k *Keeper) Enforce(ctx context.Context, now time.Time) error {
	err := errors.Join(k.enforcePayloads(ctx, now), k.enforceLedger(ctx, now))
	k.count(now, err)
	return err
}

// horizon is the first moment of the UTC day that is kept for so long: days before it are wholly older.
func horizon(now time.Time, kept time.Duration) time.Time { return now.Add(-kept).UTC().Truncate(day) }

func (k *Keeper) enforcePayloads(ctx context.Context, now time.Time) error {
	others, err := k.db.ListRetentions(ctx, k.db.Engine(), int64(k.payloads.Seconds()))
	if err != nil {
		return fmt.Errorf("read tenants' retention: %w", err)
	}
	from := horizon(now, k.payloads)
	own := make(map[uuid.UUID]time.Time, len(others)) // horizons of tenants that have another one
	ids := make([]uuid.UUID, 0, len(others))
	for _, tenant := range others {
		own[tenant.TenantID] = horizon(now, time.Duration(tenant.Seconds)*time.Second)
		ids = append(ids, tenant.TenantID)
		if err := k.advance(ctx, tenant.TenantID, own[tenant.TenantID]); err != nil {
			return err
		}
	}
	if err := k.advance(ctx, uuid.Nil, from); err != nil { // last: a tenant's own begins at what it was until now
		return err
	}
	if err := k.db.ForgetHorizons(ctx, k.db.Engine(), ids); err != nil {
		return fmt.Errorf("forget horizons: %w", err)
	}
	err = errors.Join(k.dropEvents(ctx, from, own), k.deleteAll(ctx, oldEvents, func() (int64, error) {
		n, err := k.db.DeleteDefaultEvents(ctx, k.db.Engine(), maxRows)
		return int64(n), err
	}))
	for tenant, ownFrom := range own {
		if ownFrom.After(from) {
			err = errors.Join(err, k.deleteAll(ctx, oldEvents, func() (int64, error) {
				n, err := k.db.DeleteEvents(ctx, k.db.Engine(), tenant, maxRows)
				return int64(n), err
			}))
		}
	}
	return errors.Join(err, k.eachTenant(ctx, func(tenant uuid.UUID) error {
		return k.deleteAll(ctx, oldRedeliveries, func() (int64, error) {
			return k.db.DeleteOldRedeliveries(ctx, k.db.Engine(), tenant, maxRows)
		})
	}))
}

func (k *Keeper) advance(ctx context.Context, tenant uuid.UUID, from time.Time) error {
	if err := k.db.AdvanceHorizon(ctx, k.db.Engine(), tenant, from); err != nil {
		return fmt.Errorf("advance horizon: %w", err)
	}
	return nil
}

// dropEvents drops the days before from, but for what tenants with another horizon still keep of them.
func (k *Keeper) dropEvents(ctx context.Context, from time.Time, own map[uuid.UUID]time.Time) error {
	days, err := k.db.EventDays(ctx, k.db.Engine())
	if err != nil {
		return fmt.Errorf("list days of events: %w", err)
	}
	for _, date := range days {
		if !date.Time.Before(from) {
			break
		}
		keepers := []uuid.UUID{}
		for tenant, ownFrom := range own {
			if !date.Time.Before(ownFrom) {
				keepers = append(keepers, tenant)
			}
		}
		done, err := k.db.DropEvents(ctx, k.db.Engine(), date, keepers)
		if err != nil {
			return fmt.Errorf("drop events of %s: %w", date.Time.Format(time.DateOnly), err)
		}
		if done != "kept" {
			k.metrics.eventDays.Add(1)
			k.log.Info("let go of a day's payloads", "day", date.Time.Format(time.DateOnly), "done", done, "keepers", len(keepers))
		}
	}
	return nil
}

func (k *Keeper) enforceLedger(ctx context.Context, now time.Time) error {
	from := horizon(now, k.ledger)
	days, err := k.db.AttemptDays(ctx, k.db.Engine())
	if err != nil {
		return fmt.Errorf("list days of the ledger: %w", err)
	}
	for _, date := range days {
		if !date.Time.Before(from) {
			break
		}
		dropped, err := k.db.DropAttempts(ctx, k.db.Engine(), date)
		if err != nil {
			if refused := new(pgconn.PgError); errors.As(err, &refused) && refused.Code == notSealed {
				k.log.Error("a day of the ledger is old enough to go, but not sealed", "day", date.Time.Format(time.DateOnly))
			}
			return fmt.Errorf("drop the ledger of %s: %w", date.Time.Format(time.DateOnly), err)
		}
		if dropped { // not by another node at the same time
			k.metrics.ledgerDays.Add(1)
			k.log.Info("let go of a day of the ledger", "day", date.Time.Format(time.DateOnly))
		}
	}
	return k.eachTenant(ctx, func(tenant uuid.UUID) error {
		err := k.deleteAll(ctx, oldClosed, func() (int64, error) {
			n, err := k.db.DeleteClosed(ctx, k.db.Engine(), tenant, maxRows)
			return int64(n), err
		})
		return errors.Join(err, k.deleteAll(ctx, oldAudit, func() (int64, error) {
			n, err := k.db.DeleteAudit(ctx, k.db.Engine(), tenant, maxRows)
			return int64(n), err
		}))
	})
}

// notSealed is what kapsel_drop_attempts refuses with (object_not_in_prerequisite_state).
const notSealed = "55000"

// deleteAll makes steps until one finds less than it may take.
func (k *Keeper) deleteAll(ctx context.Context, what string, step func() (int64, error)) error {
	for {
		n, err := step()
		if err != nil {
			return fmt.Errorf("delete old %s: %w", what, err)
		}
		k.metrics.rows.With("rows", what).Add(int(n))
		if n < maxRows {
			return nil
		}
	}
}

func (k *Keeper) eachTenant(ctx context.Context, do func(uuid.UUID) error) error {
	after := uuid.Nil
	for {
		tenants, err := k.db.RetainedTenants(ctx, k.db.Engine(), after, maxTenants)
		if err != nil {
			return fmt.Errorf("list tenants: %w", err)
		}
		for _, tenant := range tenants {
			if err := do(tenant); err != nil {
				return err
			}
			after = tenant
		}
		if len(tenants) < maxTenants {
			return nil
		}
	}
}
