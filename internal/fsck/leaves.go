package fsck

import (
	"bytes"
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/proto"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// row is a row of attempts.
type row struct {
	index                            int64
	tenant, attempt, delivery, event uuid.UUID
	outcome                          int16
	leaf                             []byte
	deadReason, deadAttempts         *int32 // of the dead letter that points here; nil: none does
}

// firstLeaf is the index of the first leaf that is kept. It is above 0 only if retention has dropped days, which it says in logs.
func (r *run) firstLeaf(ctx context.Context, next int64, check *Check) (int64, error) {
	var first *int64
	var kept int64
	err := r.tx.QueryRow(ctx, `select (select min(leaf_index) from attempts where log_id = $1), first_index from logs where log_id = $1`,
		r.LogID).Scan(&first, &kept)
	if err != nil {
		return 0, fmt.Errorf("find the first leaf: %w", err)
	}
	at := next
	if first != nil {
		at = *first
	}
	if at > kept {
		check.violate(leafName(kept), "and all up to %d are missing, although retention has not dropped their day", at-1)
	}
	return at, nil
}

// checkBeyond finds leaves that the log has not counted.
func (r *run) checkBeyond(ctx context.Context, next int64, check *Check) error {
	var beyond int64
	err := r.tx.QueryRow(ctx, `select count(*) from attempts where log_id = $1 and (leaf_index >= $2 or leaf_index < 0)`, r.LogID, next).Scan(&beyond)
	if beyond > 0 {
		check.violate(leafName(next), "and others are there, %d in all, although the log's next index is %d", beyond, next)
	}
	return err
}

// checkChunk reads the leaves from at up to stop, checks each, and lets the tree grow up to sealed.
func (r *run) checkChunk(ctx context.Context, c *logChecks, tree *tree, first, at, stop, sealed int64) error {
	hashes, err := r.storedLeafHashes(ctx, at, stop)
	if err != nil {
		return err
	}
	rows, err := r.tx.Query(ctx, `
		select a.leaf_index, a.tenant_id, a.attempt_id, a.delivery_id, a.event_id, a.outcome, a.leaf, d.reason::integer, d.attempts
		from attempts a
		left join dead_letters d on d.tenant_id = a.tenant_id and d.dead_letter_id = a.delivery_id and d.leaf_index = a.leaf_index
		where a.log_id = $1 and a.leaf_index >= $2 and a.leaf_index < $3 order by a.leaf_index`, r.LogID, at, stop)
	if err != nil {
		return err
	}
	named := make(map[uuid.UUID]payload)
	want := max(at, first)
	var l row
	targets := []any{&l.index, &l.tenant, &l.attempt, &l.delivery, &l.event, &l.outcome, &l.leaf, &l.deadReason, &l.deadAttempts}
	_, err = pgx.ForEachRow(rows, targets, func() error {
		c.dense.Examined++
		switch {
		case l.index < want:
			c.dense.violate(leafName(l.index), "is there twice")
			return nil
		case l.index > want:
			c.dense.violate(leafName(want), "and all up to %d are missing", l.index-1)
		}
		want = l.index + 1
		if len(l.leaf) == 0 { // erased: its hash is the one that was sealed
			c.erased.blank(l.index)
			return nil
		}
		hashes[l.index-at] = merkle.LeafHash(l.leaf)
		l.check(c, named)
		return nil
	})
	if err != nil {
		return fmt.Errorf("read leaves from %d to %d: %w", at, stop, err)
	}
	if want < stop && stop > first {
		c.dense.violate(leafName(want), "and all up to %d are missing", stop-1)
	}
	if err := r.checkNamed(ctx, &c.erased, c.erasures); err != nil {
		return err
	}
	if c.payloads != nil {
		if err := r.checkPayloads(ctx, c.payloads, named); err != nil {
			return err
		}
	}
	if sealed <= at {
		return nil
	}
	return tree.grow(ctx, hashes[:sealed-at])
}

// check compares a leaf with the columns beside it.
func (l *row) check(c *logChecks, named map[uuid.UUID]payload) {
	check := c.columns
	check.Examined++
	leaf := new(leafv1.Leaf)
	if err := proto.Unmarshal(l.leaf, leaf); err != nil {
		check.violate(leafName(l.index), "is not a leaf: %v", err)
		return
	}
	wrong := ""
	same := func(name string, in []byte, column uuid.UUID) {
		if wrong == "" && !bytes.Equal(in, column[:]) {
			wrong = name
		}
	}
	switch kind := leaf.GetKind().(type) {
	case *leafv1.Leaf_Attempt:
		a := kind.Attempt
		same("tenant", a.GetTenantId(), l.tenant)
		same("attempt", a.GetAttemptId(), l.attempt)
		same("delivery", a.GetDeliveryId(), l.delivery)
		same("event", a.GetEventId(), l.event)
		if wrong == "" && int32(a.GetOutcome()) != int32(l.outcome) {
			wrong = "outcome"
		}
		named[l.event] = payload{l.tenant, l.index, a.GetPayloadSha256(), a.GetPayloadBytes()}
	case *leafv1.Leaf_DeadLetter:
		d := kind.DeadLetter
		same("tenant", d.GetTenantId(), l.tenant)
		same("event", d.GetEventId(), l.event)
		if len(d.GetDeliveryId()) > 0 {
			same("delivery", d.GetDeliveryId(), l.delivery)
		}
		switch {
		case wrong != "":
		case l.outcome != 0:
			wrong = "outcome"
		case l.deadReason == nil:
			wrong = "dead letter, which is not there"
		case *l.deadReason != int32(d.GetReason()):
			wrong = "dead letter's reason"
		case int64(*l.deadAttempts) != int64(d.GetAttempts()):
			wrong = "dead letter's number of attempts"
		}
		named[l.event] = payload{l.tenant, l.index, d.GetPayloadSha256(), d.GetPayloadBytes()}
	case *leafv1.Leaf_Erasure:
		e := kind.Erasure
		same("tenant", e.GetTenantId(), l.tenant)
		same("erasure", e.GetErasureId(), l.attempt)
		same("delivery, which is none", e.GetErasureId(), l.delivery)
		if len(e.GetEventId()) > 0 {
			same("event", e.GetEventId(), l.event)
		}
		if wrong == "" && l.outcome != 0 {
			wrong = "outcome"
		}
		c.erased.name(c.erasures, l.index, l.tenant, e)
	case *leafv1.Leaf_KeyRotation:
		same("tenant, which is none", uuid.Nil[:], l.tenant)
		same("event, which is none", uuid.Nil[:], l.event)
		same("delivery, which is none", l.attempt[:], l.delivery)
		if _, err := verify.OpenRotation(l.leaf); wrong == "" && err != nil {
			wrong = err.Error()
		}
	default:
		wrong = "kind"
	}
	if wrong != "" {
		check.violate(leafName(l.index), "differs from its row: %s", wrong)
	}
}

// payload is what a leaf says of an event's payload.
type payload struct {
	tenant uuid.UUID
	index  int64
	sha256 []byte
	bytes  uint64
}

// checkPayloads hashes the payloads of events, in the database, so that they are not moved. An event that retention has
// dropped is not there to be checked.
func (r *run) checkPayloads(ctx context.Context, check *Check, named map[uuid.UUID]payload) error {
	tenants, events := make([]uuid.UUID, 0, len(named)), make([]uuid.UUID, 0, len(named))
	for event, payload := range named {
		tenants, events = append(tenants, payload.tenant), append(events, event)
	}
	rows, err := r.tx.Query(ctx, `select e.event_id, sha256(e.body), length(e.body)
		from unnest($1::uuid[], $2::uuid[]) as u(tenant_id, event_id)
		join events e on e.tenant_id = u.tenant_id and e.event_id = u.event_id and not e.erased`, tenants, events)
	if err != nil {
		return err
	}
	var event uuid.UUID
	var digest []byte
	var length uint64
	_, err = pgx.ForEachRow(rows, []any{&event, &digest, &length}, func() error {
		check.Examined++
		if p := named[event]; length != p.bytes || !bytes.Equal(digest, p.sha256) {
			check.violate(id.Event.Text(event), "has a payload of %d bytes that is not the one of leaf %d", length, p.index)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("hash %d payloads: %w", len(events), err)
	}
	return nil
}
