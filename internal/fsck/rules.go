package fsck

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/id"
)

// rule is an invariant that one query can check.
type rule struct {
	name string
	kind id.Kind
	// examined counts the rows that the rule is about; violations selects the ids of those that break it, and why. Both get
	// @log, and @ledger_from and @events_from: the days before which retention has dropped attempts and events.
	examined, violations string
}

var rules = []rule{
	{
		name: "queue rows have an event", kind: id.Delivery,
		examined: `select count(*) from delivery_queue`,
		violations: `select q.delivery_id, 'its event is not there'
			from delivery_queue q
			where kapsel_uuid_floor(greatest(@events_from, kapsel_events_from(q.tenant_id))) <= q.event_id
			  and not exists (select from events e where e.tenant_id = q.tenant_id and e.event_id = q.event_id)`,
	},
	{
		name: "leases are of nodes that are known, and end", kind: id.Delivery,
		examined: `select count(*) from delivery_queue where lease_owner is not null`,
		// Of nodes without a row nobody makes the leases due early. A lease is at most 75 s; what is left is for clocks.
		violations: `select q.delivery_id, case when n.node_id is null then 'its node is unknown, the lease ends ' || q.due_at
				else 'its lease ends only ' || q.due_at end
			from delivery_queue q left join nodes n on n.node_id = q.lease_owner
			where q.lease_owner is not null and q.due_at > clock_timestamp()
			  and (n.node_id is null or q.due_at > clock_timestamp() + interval '5 minutes')`,
	},
	{
		name: "a delivery is not in two of queue, dead letters and cancellations", kind: id.Delivery,
		examined: `select (select count(*) from dead_letters) + (select count(*) from cancellations)`,
		violations: `select q.delivery_id, 'is queued and dead' from delivery_queue q
			join dead_letters d on d.tenant_id = q.tenant_id and d.dead_letter_id = q.delivery_id
			union all
			select q.delivery_id, 'is queued and cancelled' from delivery_queue q
			join cancellations c on c.tenant_id = q.tenant_id and c.delivery_id = q.delivery_id
			union all
			select c.delivery_id, 'is dead and cancelled' from cancellations c
			join dead_letters d on d.tenant_id = c.tenant_id and d.dead_letter_id = c.delivery_id`,
	},
	{
		name: "events have their deliveries", kind: id.Event,
		examined: `select count(*) from events`,
		// What a filter lets pass is not known any more, so only destinations without one count, which the event cannot have
		// missed: they were there, as they are now, a minute before it. Redeliveries and tests are not the event's own.
		violations: `select e.event_id, case when e.defect <> '' then 'has a defect, and neither a dead letter nor a queue row'
				else format('has %s deliveries, and %s destinations', coalesce(p.placed, 0), w.wanted) end
			from events e
			left join (
			  select event_id, count(distinct delivery_id) as placed from (
			    select event_id, delivery_id from delivery_queue
			    union all select event_id, delivery_id from attempts where delivery_id <> attempt_id
			    union all select event_id, dead_letter_id from dead_letters
			    union all select event_id, delivery_id from cancellations
			  ) places
			  where delivery_id not in (select delivery_id from redeliveries)
			  group by event_id) p on p.event_id = e.event_id
			cross join lateral (
			  select count(*) as wanted from destinations d
			  where d.tenant_id = e.tenant_id and d.endpoint_id = e.endpoint_id and d.filter = '{}'
			    and greatest(d.created_at, d.updated_at) + interval '1 minute' < e.received_at) w
			where e.event_id >= kapsel_uuid_floor(@ledger_from) and e.event_type <> 'kapsel.test'
			  and coalesce(p.placed, 0) < case when e.defect <> '' then 1 else w.wanted end`,
	},
	{
		name: "a dead letter points at its leaf", kind: id.Delivery,
		examined: `select count(*) from dead_letters`,
		violations: `select d.dead_letter_id, case when a.leaf_index is null then format('leaf %s is not there', d.leaf_index)
				else format('leaf %s is of another delivery or of an attempt', d.leaf_index) end
			from dead_letters d
			left join attempts a on a.log_id = d.log_id and a.leaf_index = d.leaf_index
			where d.dead_at >= @ledger_from
			  and (a.leaf_index is null or a.outcome <> 0 or a.delivery_id <> d.dead_letter_id or a.event_id <> d.event_id)`,
	},
	{
		name: "deduplication keys have their event", kind: id.Event,
		examined: `select count(*) from dedup_keys`,
		violations: `select d.event_id, 'is the first of a key, and is not there'
			from dedup_keys d
			where kapsel_uuid_floor(greatest(@events_from, kapsel_events_from(d.tenant_id))) <= d.event_id
			  and not exists (select from events e where e.tenant_id = d.tenant_id and e.event_id = d.event_id)`,
	},
	{
		name: "a deduplication key makes one event in its window", kind: id.Event,
		examined: `select count(*) from events where dedup_key <> ''`,
		// A key that is still in its window: expires_at is the end of the window of its one event.
		violations: `select e.event_id, 'repeats the key of the event before it, in its window'
			from dedup_keys d
			join events f on f.tenant_id = d.tenant_id and f.event_id = d.event_id
			join events e on e.tenant_id = f.tenant_id and e.endpoint_id = f.endpoint_id and e.dedup_key = f.dedup_key
			  and e.event_id <> f.event_id
			where f.dedup_key <> '' and e.received_at > f.received_at and e.received_at < d.expires_at
			  and d.expires_at > now()`,
	},
}

// ask checks one rule. All violations are counted, none is kept but the first.
func (r *run) ask(ctx context.Context, rule rule) error {
	began := time.Now()
	check := r.newCheck(rule.name)
	arguments := pgx.NamedArgs{"log": r.LogID, "ledger_from": r.ledgerFrom, "events_from": r.eventsFrom}
	if err := r.tx.QueryRow(ctx, rule.examined).Scan(&check.Examined); err != nil {
		return err
	}
	rows, err := r.tx.Query(ctx, rule.violations, arguments)
	if err != nil {
		return err
	}
	var violator uuid.UUID
	var detail string
	_, err = pgx.ForEachRow(rows, []any{&violator, &detail}, func() error {
		check.violate(rule.kind.Text(violator), "%s", detail)
		return nil
	})
	check.Took = time.Since(began)
	return err
}
