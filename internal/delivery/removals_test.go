package delivery

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// remove deletes a destination as the API does, in the name of its tenant.
func (r *rig) remove(destination uuid.UUID) {
	r.t.Helper()
	err := r.db.AsTenant(r.t.Context(), r.tenant, func(tx pgx.Tx) error {
		return r.db.DeleteDestinations(r.t.Context(), tx, r.tenant, []uuid.UUID{destination})
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) removals(settle time.Duration) *Removals {
	return NewRemovals(r.db, settle, slog.New(slog.DiscardHandler))
}

func sweep(t *testing.T, removals *Removals) {
	t.Helper()
	if err := removals.sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestDeletedDestinationsRetriesEndSoon(t *testing.T) {
	n := newRig(t).node()
	sink := new(counter)
	url := newSink(t, sink.ServeHTTP).URL
	gone, kept := n.destination(url, 8), n.destination(url, 8)
	n.refresh()
	event := n.event("{}")
	for range 3 {
		n.due(event, gone, 2, time.Hour, uuid.Nil)
	}
	n.due(event, kept, 2, time.Hour, uuid.Nil)
	n.remove(gone)
	n.refresh()
	stop := n.run()
	sweep(t, n.removals(0))
	n.await(1, liveRows)
	stop()
	if got := n.count(`select count(*) from dead_letters where destination_id = $1 and attempts = 2 and diagnosis = 'the destination was deleted'`, gone); got != 3 {
		t.Errorf("%d dead letters, want 3", got)
	}
	if len(n.leaves()) != 3 || sink.attempts(event.ID) != nil {
		t.Errorf("%d leaves, attempts %v", len(n.leaves()), sink.attempts(event.ID))
	}
	if n.count(`select count(*) from delivery_queue where due_at > now() + interval '50 minutes'`) != 1 {
		t.Error("another destination's retry was hastened")
	}
	if n.count(`select count(*) from removed_destinations`) != 0 {
		t.Error("the duty is not done")
	}
}

func TestDeletedDestinationsLeasesAreLeftAlone(t *testing.T) {
	r := newRig(t)
	gone, owner := r.destination("http://example.com/", 8), uuid.New()
	event := r.event("{}")
	r.due(event, gone, 0, time.Hour, owner)
	r.remove(gone)
	sweep(t, r.removals(time.Hour))
	if r.count(`select count(*) from delivery_queue where due_at > now() and lease_owner = $1`, owner) != 1 {
		t.Error("a lease was changed")
	}
	// It is put off by its holder, which did not know yet: the second pass finds it.
	r.exec(`update delivery_queue set lease_owner = null`)
	sweep(t, r.removals(time.Hour))
	if r.count(`select count(*) from delivery_queue where due_at > now()`) != 1 {
		t.Error("the second pass began too early")
	}
	r.exec(`update removed_destinations set removed_at = removed_at - interval '1 hour', sweep_at = now()`)
	sweep(t, r.removals(time.Hour))
	if r.count(`select count(*) from delivery_queue where due_at > now()`) != 0 || r.count(`select count(*) from removed_destinations`) != 0 {
		t.Error("the second pass did not end what is left")
	}
}

func TestLargeBacklogOfADeletedDestinationEndsInSteps(t *testing.T) {
	r := newRig(t)
	gone, kept := r.destination("http://example.com/", 8), r.destination("http://example.com/", 8)
	event := r.event("{}")
	const each = 3 * removalPage
	for _, destination := range []uuid.UUID{kept, gone} {
		r.exec(`insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at)
			select $1, gen_random_uuid(), $2, $3, $4, now() + interval '1 hour' from generate_series(1, $5)`,
			r.tenant, event.ID, r.endpoint, destination, each)
	}
	r.remove(gone)
	removals := r.removals(0)
	hastened := func() int { return r.count(`select count(*) from delivery_queue where due_at <= now()`) }
	sweep(t, removals)
	if got := hastened(); got < removalPace || got > removalPace+removalPage {
		t.Errorf("%d deliveries were made due in the first second, want about %d", got, removalPace)
	}
	for range each / removalPace {
		sweep(t, removals)
	}
	if got := hastened(); got != each {
		t.Errorf("%d deliveries were made due, want %d", got, each)
	}
	if r.count(`select count(*) from delivery_queue where due_at <= now() and destination_id = $1`, kept) != 0 || r.count(`select count(*) from removed_destinations`) != 0 {
		t.Error("another destination's were made due too, or the duty is not done")
	}
}

func TestOtherTenantsQueueIsNotSwept(t *testing.T) {
	r := newRig(t)
	gone := r.destination("http://example.com/", 8)
	r.exec(`insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at)
		values (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), $1, now() + interval '1 hour')`, gone)
	r.remove(gone)
	sweep(t, r.removals(0))
	if r.count(`select count(*) from delivery_queue where due_at <= now()`) != 0 {
		t.Error("a row of another tenant was changed")
	}
}
