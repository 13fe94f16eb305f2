package fsck

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
)

// deliveryQuery reads the ledger a delivery at a time, in the order of its leaves, with the places where the delivery is
// now. PostgreSQL sorts on its disk if need be.
const deliveryQuery = `
select a.delivery_id, a.event_id, a.leaf_index, a.leaf, q.attempts, q.lost_owner is not null,
  d.attempts, c.attempts
from attempts a
left join delivery_queue q on q.tenant_id = a.tenant_id and q.delivery_id = a.delivery_id
left join dead_letters d on d.tenant_id = a.tenant_id and d.dead_letter_id = a.delivery_id
left join cancellations c on c.tenant_id = a.tenant_id and c.delivery_id = a.delivery_id
where a.log_id = $1 and a.delivery_id <> a.attempt_id
order by a.delivery_id, a.leaf_index`

// delivery is what the ledger says of one delivery, and where it is.
type delivery struct {
	id, event               uuid.UUID
	queued, dead, cancelled *int32 // attempts as the place counts them; nil: it is not there
	beingTaken              bool   // queued, and a lost node's attempt is not recorded yet
	numbers                 map[uint32]*tries
	first, last             uint32
	erased                  bool // leaves of it have no bytes: how its attempts went is not known any more
}

// tries are the attempts of one number: one, or more when a node lost its lease while its attempt was under way.
type tries struct{ count, succeeded, unsure int } // succeeded: in time

// checkDeliveries checks that each delivery with attempts is in just one place, and that its attempts are numbered from 1
// without gap.
func (r *run) checkDeliveries(ctx context.Context) error {
	began := time.Now()
	places := r.newCheck("deliveries with attempts are queued, delivered, dead or cancelled: just one of these")
	numbers := r.newCheck("attempts of a delivery are numbered 1 to n, one each")
	rows, err := r.tx.Query(ctx, deliveryQuery, r.LogID)
	if err != nil {
		return err
	}
	var next, at delivery
	var index int64
	var bytes []byte
	finish := func() {
		if at.id != uuid.Nil {
			places.Examined++
			at.checkPlace(places)
			if at.erased {
				return
			}
			at.checkNumbers(numbers, r.ledgerFrom)
		}
	}
	targets := []any{&next.id, &next.event, &index, &bytes, &next.queued, &next.beingTaken, &next.dead, &next.cancelled}
	_, err = pgx.ForEachRow(rows, targets, func() error {
		if next.id != at.id {
			finish()
			at = next
			at.numbers = make(map[uint32]*tries)
		}
		at.erased = at.erased || len(bytes) == 0
		leaf := new(leafv1.Leaf)
		if proto.Unmarshal(bytes, leaf) != nil {
			return nil // checkLog reports it
		}
		if attempt := leaf.GetAttempt(); attempt != nil {
			numbers.Examined++
			at.add(attempt)
		}
		return nil
	})
	if err != nil {
		return err
	}
	finish()
	places.Took, numbers.Took = time.Since(began), time.Since(began)
	return nil
}

func (d *delivery) add(attempt *leafv1.Attempt) {
	number := attempt.GetNumber()
	t := d.numbers[number]
	if t == nil {
		t = new(tries)
		d.numbers[number] = t
	}
	t.count++
	switch {
	case attempt.GetOutcome() == leafv1.Outcome_OUTCOME_UNKNOWN || attempt.GetLate():
		t.unsure++
	case attempt.GetOutcome() == leafv1.Outcome_OUTCOME_SUCCEEDED:
		t.succeeded++
	}
	if d.first == 0 || number < d.first {
		d.first = number
	}
	d.last = max(d.last, number)
}

// checkPlace finds deliveries in no place or in several, or delivered twice. A success that came too late closed nothing; nor
// did that of an attempt which was under way when its delivery was cancelled.
func (d *delivery) checkPlace(check *Check) {
	successes := 0
	for number, t := range d.numbers {
		if d.cancelled == nil || int64(number) <= int64(*d.cancelled) {
			successes += t.succeeded
		}
	}
	var in []string
	for _, place := range []struct {
		name string
		is   bool
	}{{"queued", d.queued != nil}, {"dead", d.dead != nil}, {"cancelled", d.cancelled != nil}, {"delivered", successes > 0}} {
		if place.is {
			in = append(in, place.name)
		}
	}
	switch {
	case len(in) > 1:
		check.violate(id.Delivery.Text(d.id), "is in several places: %v", in)
	case successes > 1:
		check.violate(id.Delivery.Text(d.id), "was delivered %d times in time", successes)
	case len(in) == 0 && !d.erased:
		check.violate(id.Delivery.Text(d.id), "has %d attempts, none of them final, and is in no place", len(d.numbers))
	}
}

func (d *delivery) checkNumbers(check *Check, ledgerFrom time.Time) {
	text := id.Delivery.Text(d.id)
	from := uint32(1)
	if id.Time(d.event).Before(ledgerFrom) && d.first > 0 {
		from = d.first // retention has dropped the days of the first attempts
	}
	for number := from; number <= d.last; number++ {
		t := d.numbers[number]
		switch {
		case t == nil:
			check.violate(text, "attempt %d is missing, there are attempts up to %d", number, d.last)
			return
		case t.count-t.unsure > 1, t.count > 1 && t.unsure == 0:
			check.violate(text, "attempt %d is there %d times", number, t.count)
			return
		}
	}
	for _, place := range []struct {
		name    string
		counted *int32
	}{{"queue row", d.queued}, {"dead letter", d.dead}} {
		if place.counted == nil {
			continue
		}
		counted, fewer := int64(*place.counted), int64(*place.counted) < int64(d.last)
		if counted > int64(d.last) || fewer && !d.beingTaken && d.numbers[d.last].unsure == 0 {
			check.violate(text, "its %s counts %d attempts, the ledger has %d", place.name, counted, d.last)
		}
	}
}
