package delivery

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	holdInterval = 250 * time.Millisecond
	// A step looks at so many due rows. It is repeated while it finds any, so that a backlog is gone from the claims' way
	// within seconds, and no statement is long.
	holdPage     = 5000
	maxHoldSteps = 10
	// What one node releases of a destination's backlog in an interval (releasePace): a few at first, for a destination that has just
	// been mended, twice as many each time after.
	firstRelease = 10
	maxRelease   = 500

	tidyInterval          = time.Minute
	keepTraffic           = 10 * time.Minute
	keepOperationalEvents = 30 * 24 * time.Hour
)

// heldFrom is before every moment at which something is held. No delivery is really due that late.
var heldFrom = time.Date(3000, time.January, 1, 0, 0, 0, 0, time.UTC)

// HeldUntil is the moment that stands for a destination in the queue's order: its deliveries are found there again by the
// one index that the queue has. Its 40 bits are random bits of a UUIDv7.
func HeldUntil(destinationID uuid.UUID) time.Time {
	bits := binary.BigEndian.Uint64(destinationID[8:]) & (1<<40 - 1)
	return heldFrom.Add(time.Duration(bits) * time.Microsecond)
}

// Held reports whether a delivery that is due then is held, or waits for its turn: it has no time of its own.
func Held(due time.Time) bool { return !due.Before(turnMoment) }

// Holder keeps deliveries of paused and disabled destinations, and of those whose circuit breaker is open, out of the way.
// It gives back what this node holds of them, puts their due rows off in bulk without reading a payload, and lets them come
// back by and by when the destination is enabled again or works again. It shares the health of destinations with the other
// nodes, makes the breakers' probes, and disables destinations when an attempt or days of failure demand it. Every node
// runs one.
type Holder struct {
	db         *store.DB
	routes     *route.Table
	dispatcher *Dispatcher
	health     *health
	claimer    *Claimer
	log        *slog.Logger
	paces      map[uuid.UUID]releasePace // of active destinations of which something is held
	read       time.Time                 // when other nodes' breakers were read
	newest     time.Time                 // the newest change of a breaker that was read, by the database's clock
	tidied     time.Time
}

// NewHolder makes the holder of a node. Probes are claimed and handed over by claimer.
func NewHolder(db *store.DB, routes *route.Table, dispatcher *Dispatcher, claimer *Claimer, log *slog.Logger) *Holder {
	return &Holder{
		db: db, routes: routes, dispatcher: dispatcher, health: dispatcher.health, claimer: claimer, log: log,
		paces: make(map[uuid.UUID]releasePace),
	}
}

// Run does its duties four times a second until ctx ends.
func (h *Holder) Run(ctx context.Context) error {
	return every(ctx, holdInterval, func() {
		if err := h.tick(ctx); err != nil && ctx.Err() == nil {
			h.log.Warn("deliveries not held or released, trying again", "error", err)
		}
	})
}

// every calls work once in each interval until ctx ends.
func every(ctx context.Context, interval time.Duration, work func()) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		work()
	}
}

func (h *Holder) tick(ctx context.Context) error {
	fault.Pass(fault.HolderTick)
	snapshot := h.routes.Snapshot()
	errs := []error{h.disable(ctx), h.share(ctx), h.tidy(ctx, snapshot)}
	shut := append(h.health.shutDestinations(), snapshot.InactiveDestinations()...)
	h.dispatcher.withdraw(shut)
	held, err := h.heldMoments(ctx)
	if err == nil {
		err = h.probe(ctx, snapshot, held)
	}
	errs = append(errs, err, h.hold(ctx, shut), h.holdOverflow(ctx, snapshot))
	if held != nil {
		errs = append(errs, h.release(ctx, snapshot, held))
	}
	return errors.Join(errs...)
}

// tidy does once a minute what has time.
func (h *Holder) tidy(ctx context.Context, snapshot *route.Snapshot) error {
	now := time.Now()
	if now.Sub(h.tidied) < tidyInterval {
		return nil
	}
	h.tidied = now
	h.health.forget(snapshot)
	return errors.Join(
		h.disableFailing(ctx),
		h.db.RemoveTraffic(ctx, h.db.Engine(), keepTraffic.Seconds()),
		h.db.RemoveOperationalEvents(ctx, h.db.Engine(), keepOperationalEvents.Seconds()),
	)
}

// hold puts off what is due of destinations that get nothing now.
func (h *Holder) hold(ctx context.Context, shut []uuid.UUID) error {
	return holdInPages(shut, func(moments []time.Time) (int64, error) {
		held, err := h.db.HoldDeliveries(ctx, h.db.Engine(), shut, moments, holdPage)
		if err != nil {
			return 0, fmt.Errorf("hold deliveries: %w", err)
		}
		return held, nil
	})
}

// holdInPages calls page with the destinations' moments until it finds nothing more to put off, at most maxHoldSteps times.
func holdInPages(destinationIDs []uuid.UUID, page func(moments []time.Time) (held int64, err error)) error {
	if len(destinationIDs) == 0 {
		return nil
	}
	moments := make([]time.Time, len(destinationIDs))
	for i, destinationID := range destinationIDs {
		moments[i] = HeldUntil(destinationID)
	}
	for range maxHoldSteps {
		if held, err := page(moments); err != nil || held == 0 {
			return err
		}
	}
	return nil
}

// heldMoments are the moments at which something is held, in microseconds since 1970.
func (h *Holder) heldMoments(ctx context.Context) (map[int64]bool, error) {
	moments, err := h.db.HeldMoments(ctx, h.db.Engine(), heldFrom)
	if err != nil {
		return nil, fmt.Errorf("look for held deliveries: %w", err)
	}
	held := make(map[int64]bool, len(moments))
	for _, moment := range moments {
		held[moment.UnixMicro()] = true
	}
	return held, nil
}

// releasePace is how much of a destination's backlog this node releases in an interval. It outlasts the destination's circuit
// breaker: what went well before the breaker opened is halved once for each pause, so that a destination that fails now and
// then has its backlog soon, and one that was long away begins anew.
type releasePace struct {
	released int // in the last interval, before a rate or a full lane lessened it
	pauses   int // of the breaker since then, at most
}

func (p releasePace) shut(pauses int) releasePace {
	p.pauses = max(p.pauses, pauses)
	return p
}

func (p releasePace) next() releasePace {
	if p.pauses == 0 {
		return releasePace{released: min(max(firstRelease, 2*p.released), maxRelease)}
	}
	return releasePace{released: max(firstRelease, p.released>>p.pauses)}
}

// release makes some of what is held for destinations that are delivered to due.
func (h *Holder) release(ctx context.Context, snapshot *route.Snapshot, held map[int64]bool) error {
	paces := make(map[uuid.UUID]releasePace)
	if len(held) > 0 {
		for _, destination := range snapshot.ActiveDestinations() {
			if !held[HeldUntil(destination.ID).UnixMicro()] {
				continue
			}
			if pauses := h.health.pauses(destination.ID); pauses > 0 {
				paces[destination.ID] = h.paces[destination.ID].shut(pauses)
				continue
			}
			p := h.paces[destination.ID].next()
			paces[destination.ID] = p
			n := p.released
			if destination.RatePerSecond > 0 {
				n = min(n, max(1, int(holdInterval/h.dispatcher.interval(destination))))
			}
			if n = min(n, h.dispatcher.laneRoom(destination, false)); n <= 0 {
				continue // its lane is full: it comes back as that gets room
			}
			if _, err := h.db.ReleaseHeld(ctx, h.db.Engine(), HeldUntil(destination.ID), destination.ID, int32(n)); err != nil {
				return fmt.Errorf("release held deliveries: %w", err)
			}
		}
	}
	h.paces = paces
	return nil
}
