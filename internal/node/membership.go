package node

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	heartbeatInterval = time.Second
	// A node that has been silent for so long is dead, and its leases are taken over.
	deadAfter = 5 * time.Second
	// Rows of dead nodes go when none of their leases can be left.
	forgetAfter = 10 * delivery.DefaultLease
)

// membership keeps this node's heartbeat, and makes the leases of dead nodes due.
type membership struct {
	db      *store.DB
	nodeID  uuid.UUID
	name    string
	version string
	roles   []Role
	// live is told after each beat how many nodes are alive: all, those that take webhooks in, and those that deliver; this one
	// included.
	live  func(all, ingesting, delivering int)
	clock clockCheck
	log   *slog.Logger
}

// Run beats until ctx ends.
func (m *membership) Run(ctx context.Context) error {
	ticker := time.NewTicker(heartbeatInterval)
	defer ticker.Stop()
	// After an outage of the database every node looks dead: give all of them time for a heartbeat first.
	patient := time.Now().Add(deadAfter)
	for {
		if err := m.beat(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			m.log.Warn("heartbeat failed", "error", err)
			patient = time.Now().Add(deadAfter)
		} else if time.Now().After(patient) {
			if err := m.takeOver(ctx); err != nil && ctx.Err() == nil {
				m.log.Warn("leases of dead nodes not taken over", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

func (m *membership) beat(ctx context.Context) error {
	if err := fault.Point(fault.MembershipBeat); err != nil {
		return err
	}
	// Not given up when the node stops: the database could take it after the node has left, which would be a member again.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), heartbeatInterval)
	defer cancel()
	roles := make([]string, len(m.roles))
	for i, role := range m.roles {
		roles[i] = string(role)
	}
	asked := time.Now()
	alive, err := m.db.Heartbeat(ctx, m.db.Engine(), store.HeartbeatParams{
		NodeID: m.nodeID, Name: m.name, Version: m.version, Roles: roles,
		Features: delivery.Features, DeadAfterSeconds: deadAfter.Seconds(),
	})
	if err != nil {
		return err
	}
	m.clock.compare(alive.DatabaseTime, asked, time.Now(), m.log)
	m.live(int(alive.Alive), int(alive.Ingesting), int(alive.Delivering))
	return nil
}

func (m *membership) takeOver(ctx context.Context) error {
	taken, err := m.db.ExpireLeasesOfDeadNodes(ctx, m.db.Engine(), delivery.DefaultLease.Seconds(), m.nodeID, deadAfter.Seconds())
	if err != nil {
		return fmt.Errorf("expire leases: %w", err)
	}
	if taken > 0 {
		m.log.Warn("took over the leases of dead nodes", "leases", taken)
	}
	if _, err := m.db.RemoveDeadNodes(ctx, m.db.Engine(), forgetAfter.Seconds()); err != nil {
		return fmt.Errorf("forget dead nodes: %w", err)
	}
	return nil
}

// leave says that this node is gone, so that nobody waits for its heartbeat. If leases are left, nobody is told: then the
// others miss the heartbeat and take the leases over, sooner than they would run out.
func (m *membership) leave(ctx context.Context) error {
	left, err := m.db.RemoveNode(ctx, m.db.Engine(), m.nodeID, delivery.DefaultLease.Seconds())
	if err != nil {
		return fmt.Errorf("remove node: %w", err)
	}
	if left == 0 {
		m.log.Warn("leases are left, other nodes take them over", "after", deadAfter)
	}
	return nil
}
