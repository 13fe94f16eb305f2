package delivery

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	// maxDetailBytes bounds what is stored for people about a destination that was disabled.
	maxDetailBytes = 1000
	// A destination of which every attempt failed for so long is disabled. The default schedule has given up by then.
	failingLimit = 5 * 24 * time.Hour
	// So many are looked at in a minute.
	failingPage = 100
)

// disableDemand is what an attempt demanded of its destination.
type disableDemand struct {
	tenantID uuid.UUID
	eventID  uuid.UUID // whose attempt it was; uuid.Nil: many
	disable  ledger.Disable
	// knownAt is of when the settings were that the attempt was made with: it says nothing about later ones. Zero: any.
	knownAt time.Time
}

// demandDisable asks the holder to disable a destination. The demand of the newest settings stands: those of
// attempts that were in flight with it add nothing. A demand that is lost with its node is made again by the next attempt.
func (d *Dispatcher) demandDisable(destinationID uuid.UUID, demand disableDemand) {
	d.demanding.Lock()
	defer d.demanding.Unlock()
	if d.demands == nil {
		d.demands = make(map[uuid.UUID]disableDemand)
	}
	if first, found := d.demands[destinationID]; !found || first.knownAt.Before(demand.knownAt) {
		d.demands[destinationID] = demand
	}
}

func (d *Dispatcher) takeDisables() map[uuid.UUID]disableDemand {
	d.demanding.Lock()
	defer d.demanding.Unlock()
	demands := d.demands
	d.demands = nil
	return demands
}

// withdraw gives back what waits in the lanes of some destinations. What is in flight ends as it may.
func (d *Dispatcher) withdraw(destinationIDs []uuid.UUID) {
	var unsent []Job
	for _, destinationID := range destinationIDs {
		if l, found := d.lanes.Load(destinationID); found {
			unsent = append(unsent, l.(*lane).drain()...)
		}
	}
	d.giveBack(unsent)
}

// inFlight is how many attempts of a destination this node is making.
func (d *Dispatcher) inFlight(destinationID uuid.UUID) int {
	if l, found := d.lanes.Load(destinationID); found {
		return int(l.(*lane).inFlight.Load())
	}
	return 0
}

// disable carries out what attempts demanded. What fails is tried again.
func (h *Holder) disable(ctx context.Context) error {
	var failed []error
	for destinationID, demand := range h.dispatcher.takeDisables() {
		if err := h.disableOne(ctx, destinationID, demand); err != nil {
			h.dispatcher.demandDisable(destinationID, demand)
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

func (h *Holder) disableOne(ctx context.Context, destinationID uuid.UUID, demand disableDemand) error {
	params := store.DisableDestinationParams{
		TenantID: demand.tenantID, DestinationID: destinationID, DisableReason: int16(demand.disable.Reason),
		StateDetail: store.CleanText(demand.disable.Detail, maxDetailBytes), OperationalEventID: id.New(), ResourceID: id.Destination.Text(destinationID),
	}
	if demand.eventID != uuid.Nil {
		params.EventID = &demand.eventID
	}
	if !demand.knownAt.IsZero() {
		params.KnownAt = &demand.knownAt
	}
	changed, err := h.db.DisableDestination(ctx, h.db.Engine(), params)
	if err != nil {
		return fmt.Errorf("disable destination %s: %w", id.Destination.Text(destinationID), err)
	}
	if changed > 0 {
		attributes := []any{"tenant_id", id.Tenant.Text(demand.tenantID), "destination_id", id.Destination.Text(destinationID),
			"reason", demand.disable.Reason, "detail", demand.disable.Detail}
		if demand.eventID != uuid.Nil {
			attributes = append(attributes, "event_id", id.Event.Text(demand.eventID))
		}
		h.log.Warn("destination disabled", attributes...)
		h.routes.Poke()
	}
	return nil
}

// disableFailing disables destinations that have failed for days.
func (h *Holder) disableFailing(ctx context.Context) error {
	rows, err := h.db.FailingDestinations(ctx, h.db.Engine(), failingLimit.Seconds(), failingPage)
	if err != nil {
		return fmt.Errorf("look for destinations that have failed for days: %w", err)
	}
	var failed []error
	for _, row := range rows {
		detail := fmt.Sprintf("all %d attempts since %s failed: mend it, then resume it; the last one: %s",
			row.ConsecutiveFailures, row.FailingSince.UTC().Format(time.RFC3339), row.LastDiagnosis)
		failed = append(failed, h.disableOne(ctx, row.DestinationID, disableDemand{
			tenantID: row.TenantID, disable: ledger.Disable{Reason: kapselv1.DisableReason_DISABLE_REASON_FAILING, Detail: detail},
		}))
	}
	return errors.Join(failed...)
}
