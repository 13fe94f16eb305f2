package tenant

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// usesInterval is how often the times of last use are written, and so how precise they are.
	usesInterval = time.Minute
	// maxUses of keys in that time. What is above shows up with its next use.
	maxUses = maxKnown
	// lastUsesTimeout bounds the write of what is left at the end.
	lastUsesTimeout = 5 * time.Second
)

// uses gathers which keys were used, until Run writes it down. A key that is in use is noted once every CacheTTL, when it is
// looked up: requests that find it in the cache pay nothing.
type uses struct {
	mu   sync.Mutex
	last map[use]time.Time
}

type use struct{ tenantID, keyID uuid.UUID }

func (u *uses) note(tenantID, keyID uuid.UUID, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	key := use{tenantID, keyID}
	if _, found := u.last[key]; !found && len(u.last) >= maxUses {
		return
	}
	if u.last == nil {
		u.last = make(map[use]time.Time)
	}
	u.last[key] = at
}

func (u *uses) take() map[use]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	last := u.last
	u.last = nil
	return last
}

// Run writes the times of last use once a minute, all in one statement, until ctx ends, and then what is left.
func (a *Authenticator) Run(ctx context.Context, log *slog.Logger) error {
	ticker := time.NewTicker(usesInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
		writeCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastUsesTimeout)
		err := a.writeUses(writeCtx)
		cancel()
		if err != nil {
			log.Warn("times of last use of API keys not written", "error", err)
		}
	}
	return ctx.Err()
}

func (a *Authenticator) writeUses(ctx context.Context) error {
	var tenantIDs, keyIDs []uuid.UUID
	var usedAt []time.Time
	taken := a.uses.take()
	// In one order, so that nodes that write the same keys wait for each other at most.
	for _, key := range slices.SortedFunc(maps.Keys(taken), func(x, y use) int { return bytes.Compare(x.keyID[:], y.keyID[:]) }) {
		tenantIDs, keyIDs, usedAt = append(tenantIDs, key.tenantID), append(keyIDs, key.keyID), append(usedAt, taken[key])
	}
	if len(keyIDs) == 0 {
		return nil
	}
	if err := a.db.TouchAPIKeys(ctx, a.db.Engine(), tenantIDs, keyIDs, usedAt); err != nil {
		return fmt.Errorf("note the use of %d API keys: %w", len(keyIDs), err)
	}
	return nil
}
