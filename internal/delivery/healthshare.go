package delivery

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// How often other nodes' breakers are read.
	readInterval = time.Second
	// A transaction that began before another may end after it, by so much at most.
	readOverlap = 5 * time.Second
	// How often what changed of a destination is written: of one that works, of one that fails. A breaker's change takes
	// everything with it at once.
	writeInterval        = 10 * time.Second
	writeFailingInterval = 2 * time.Second
)

// Kinds of operational events.
const (
	kindOpened = "breaker_opened"
	kindClosed = "breaker_closed"
)

// share brings what this node knows of destinations to the others, and what they know here. While the database is away this
// node goes on with its own view, and hands it in later; of two breakers the one that was written first stands.
func (h *Holder) share(ctx context.Context) error {
	now := time.Now()
	if err := h.write(ctx, now); err != nil {
		return err
	}
	if now.Sub(h.read) < readInterval {
		return nil
	}
	rows, err := h.db.ChangedBreakers(ctx, h.db.Engine(), h.newest.Add(-readOverlap), h.read.IsZero())
	if err != nil {
		return fmt.Errorf("read circuit breakers: %w", err)
	}
	h.read = now
	for _, row := range rows {
		if row.ChangedAt.After(h.newest) {
			h.newest = row.ChangedAt
		}
		a := h.health.find(row.DestinationID)
		if a == nil {
			if breakerState(row.Breaker) == breakerClosed {
				continue
			}
			a = h.health.account(row.TenantID, row.DestinationID)
		}
		h.health.adopt(a, breakerState(row.Breaker), int(row.Pauses), int(row.Successes), seconds(row.ProbeInSeconds), row.Generation)
	}
	return nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// write hands in what is due to be written, one statement for all destinations.
func (h *Holder) write(ctx context.Context, now time.Time) error {
	var figures writtenFigures
	var traffic writtenTraffic
	var breakers writtenBreakers
	traffic.NodeID = h.dispatcher.nodeID
	for _, a := range h.health.all() {
		a.mu.Lock()
		since := now.Sub(a.wrote)
		if a.changed || since >= writeInterval || a.figures.failures > 0 && since >= writeFailingInterval {
			figures.take(a)
			traffic.take(a, h.dispatcher.inFlight(a.destinationID), now)
			breakers.take(a, now)
			a.wrote = now
		}
		a.mu.Unlock()
	}
	if len(figures.accounts) > 0 {
		if err := h.db.WriteHealth(ctx, h.db.Engine(), figures.WriteHealthParams); err != nil {
			figures.giveBack()
			return fmt.Errorf("write health of destinations: %w", err)
		}
	}
	if len(breakers.accounts) > 0 {
		rows, err := h.db.ShareBreakers(ctx, h.db.Engine(), breakers.ShareBreakersParams)
		if err != nil {
			return fmt.Errorf("write circuit breakers: %w", err)
		}
		h.settleBreakers(breakers, rows)
	}
	if len(traffic.DestinationIds) > 0 {
		if err := h.db.WriteTraffic(ctx, h.db.Engine(), traffic.WriteTrafficParams); err != nil {
			return fmt.Errorf("write traffic of destinations: %w", err)
		}
	}
	return nil
}

// writtenFigures are figures that were taken to be written.
type writtenFigures struct {
	store.WriteHealthParams
	accounts []*account
	taken    []figures
}

// take takes an account's figures, if there are any. The account is locked.
func (w *writtenFigures) take(a *account) {
	f := a.figures
	if f.empty() {
		return
	}
	a.figures = figures{}
	w.accounts, w.taken = append(w.accounts, a), append(w.taken, f)
	w.TenantIds = append(w.TenantIds, a.tenantID)
	w.DestinationIds = append(w.DestinationIds, a.destinationID)
	w.Failures = append(w.Failures, f.failures)
	w.SuccessAts = append(w.SuccessAts, f.successAt)
	w.FailureIds = append(w.FailureIds, f.failureID)
	w.FailureAts = append(w.FailureAts, f.failureAt)
	w.Diagnoses = append(w.Diagnoses, a.cleanDiagnosis())
	if f.failures == 0 {
		f.failingSince = time.Time{}
	}
	w.FailingSinces = append(w.FailingSinces, f.failingSince)
}

// giveBack puts figures that were not written in front of what has come since.
func (w *writtenFigures) giveBack() {
	for i, a := range w.accounts {
		a.mu.Lock()
		a.figures = w.taken[i].before(a.figures)
		a.mu.Unlock()
	}
}

// writtenTraffic are figures of minutes. They are written again as they are then: one that fails is not missed for long.
type writtenTraffic struct{ store.WriteTrafficParams }

func (w *writtenTraffic) take(a *account, inFlight int, now time.Time) {
	if inFlight != a.inFlight {
		a.turnMinute(now)
		a.inFlight, a.current.dirty = inFlight, true
	}
	for _, t := range []*traffic{&a.previous, &a.current} {
		if !t.dirty {
			continue
		}
		t.dirty = false
		w.TenantIds = append(w.TenantIds, a.tenantID)
		w.DestinationIds = append(w.DestinationIds, a.destinationID)
		w.Minutes = append(w.Minutes, time.Unix(t.minute*60, 0))
		w.Succeeded = append(w.Succeeded, t.succeeded)
		w.Failed = append(w.Failed, t.failed)
		w.Durations = append(w.Durations, t.durations.append([]byte{})) // nil would be NULL
		w.InFlight = append(w.InFlight, int32(inFlight))
	}
}

// writtenBreakers are breakers that changed.
type writtenBreakers struct {
	store.ShareBreakersParams
	accounts map[uuid.UUID]*account
	states   map[uuid.UUID]breaker // as they were handed in
}

func (w *writtenBreakers) take(a *account, now time.Time) {
	if !a.changed {
		return
	}
	if w.accounts == nil {
		w.accounts, w.states = make(map[uuid.UUID]*account), make(map[uuid.UUID]breaker)
	}
	w.accounts[a.destinationID], w.states[a.destinationID] = a, a.breaker
	kind, detail := "", ""
	switch {
	case a.shared == breakerClosed && a.breaker.state != breakerClosed:
		kind = kindOpened
		detail = fmt.Sprintf("nothing is sent for %v: too many attempts failed; the last one: %s", a.breaker.probeAt.Sub(now).Round(time.Second), a.cleanDiagnosis())
	case a.shared != breakerClosed && a.breaker.state == breakerClosed:
		kind, detail = kindClosed, "it works again: what was held is sent by and by"
	}
	w.TenantIds = append(w.TenantIds, a.tenantID)
	w.DestinationIds = append(w.DestinationIds, a.destinationID)
	w.Breakers = append(w.Breakers, int16(a.breaker.state))
	w.ProbeInSeconds = append(w.ProbeInSeconds, max(0, a.breaker.probeAt.Sub(now)).Seconds())
	w.Pauses = append(w.Pauses, int32(a.breaker.pauses))
	w.Successes = append(w.Successes, int16(a.breaker.successes))
	w.Generations = append(w.Generations, a.generation)
	w.EventIds = append(w.EventIds, id.New())
	w.Kinds = append(w.Kinds, kind)
	w.Details = append(w.Details, detail)
}

// settleBreakers takes over what the database made of the changes: each stands, or another node was first.
func (h *Holder) settleBreakers(handed writtenBreakers, rows []store.ShareBreakersRow) {
	for _, row := range rows {
		a, mine := handed.accounts[row.DestinationID], handed.states[row.DestinationID]
		if !row.Won {
			h.health.adopt(a, breakerState(row.Breaker), int(row.Pauses), int(row.Successes), seconds(row.ProbeInSeconds), row.Generation)
			continue
		}
		a.mu.Lock()
		before := a.shared
		a.generation, a.shared = row.Generation, mine.state
		a.changed = a.breaker.state != mine.state || a.breaker.pauses != mine.pauses || a.breaker.successes != mine.successes
		a.mu.Unlock()
		attributes := []any{slog.String("tenant_id", id.Tenant.Text(a.tenantID)), slog.String("destination_id", id.Destination.Text(a.destinationID))}
		switch {
		case before == breakerClosed && mine.state != breakerClosed:
			h.log.Warn("circuit breaker opened", append(attributes, slog.String("diagnosis", a.diagnosis))...)
		case before != breakerClosed && mine.state == breakerClosed:
			h.log.Info("circuit breaker closed", attributes...)
		}
	}
}
