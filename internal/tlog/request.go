package tlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// SealChannel is the channel on which a node asks the one that leads for a seal, with the log's id as payload.
const SealChannel = "kapsel_seal_requests"

const (
	// sealPoll is how often a node that does not lead looks whether the leader has sealed its leaves.
	sealPoll = 100 * time.Millisecond
	// sealAskInterval is how often it asks: a notice can be lost, and the lead can change.
	sealAskInterval = time.Second
)

// SealAll has a head published over all leaves that are recorded by now, by this node or by the one that leads, and returns
// a head that covers them. If the leader is dead, its lease runs out within seconds, and this node seals.
func (s *Sealer) SealAll(ctx context.Context) (Head, error) {
	progress, err := s.queries.LogProgress(ctx, s.DB, s.LogID)
	if err != nil {
		return Head{}, fmt.Errorf("read the log's progress: %w", err)
	}
	var asked time.Time
	for {
		row, err := s.queries.LatestTreeHead(ctx, s.DB, s.LogID)
		switch {
		case errors.Is(err, pgx.ErrNoRows): // a new log: the first seal makes its empty head
		case err != nil:
			return Head{}, fmt.Errorf("read latest tree head: %w", err)
		case row.TreeSize >= progress.NextIndex:
			return newHead(row.TreeSize, row.RootHash, row.SignedAt, row.Note)
		}
		if time.Since(asked) >= sealAskInterval {
			asked = time.Now()
			err := s.Flush(ctx)
			if err == nil {
				continue
			}
			if !errors.Is(err, ErrNotLeader) {
				return Head{}, err
			}
			if err := s.queries.RequestSeal(ctx, s.DB, s.LogID); err != nil {
				return Head{}, fmt.Errorf("ask the leader for a seal: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return Head{}, fmt.Errorf("wait for the node that leads: %w", ctx.Err())
		case <-time.After(sealPoll):
		}
	}
}

// Requested takes the payload of a notification on SealChannel: if this node leads, it seals at its next look whatever
// waits. It never blocks.
func (s *Sealer) Requested(payload string) {
	if payload == strconv.FormatInt(int64(s.LogID), 10) {
		s.requested.Store(true)
		s.Wake()
	}
}
