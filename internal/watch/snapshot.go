// Package watch finds out what has changed of a tenant's events since a position, for streams of events. It reads what intake,
// recorder and API have committed and asks nothing of them: no trigger, no notice, no column, so that nobody pays for it but those
// who watch.
//
// A position has two parts, and both are exact. The ledger's leaf index stands for all that was delivered or given up: leaves are
// dense and committed in order. For all else it is a snapshot of PostgreSQL: a row is new if the transaction that wrote it was not
// visible in the snapshot. Ids made in order but committed out of it, clocks of nodes and lost notices do not matter.
package watch

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Snapshot says which transactions have ended: all before Xmin, and those before Xmax that are not in Running (pg_snapshot).
type Snapshot struct {
	Xmin, Xmax uint64
	Running    []uint64
}

// ParseSnapshot reads the text of a pg_snapshot, "xmin:xmax:xid,xid,…".
func ParseSnapshot(text string) (s Snapshot, err error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return s, fmt.Errorf("%.60q is not a snapshot", text)
	}
	if s.Xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return s, fmt.Errorf("snapshot: %w", err)
	}
	if s.Xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return s, fmt.Errorf("snapshot: %w", err)
	}
	for part := range strings.SplitSeq(parts[2], ",") {
		if part == "" {
			continue
		}
		xid, err := strconv.ParseUint(part, 10, 64)
		if err != nil {
			return s, fmt.Errorf("snapshot: %w", err)
		}
		s.Running = append(s.Running, xid)
	}
	slices.Sort(s.Running)
	return s, nil
}

// Sees says whether what a transaction wrote is visible, given that it was committed.
func (s Snapshot) Sees(xid uint64) bool {
	if xid >= s.Xmax {
		return false
	}
	_, running := slices.BinarySearch(s.Running, xid)
	return xid < s.Xmin || !running
}

// widen makes a full transaction id of the 32 bits that a row bears: the latest one that is not after the snapshot by half of what 32
// bits can count.
func (s Snapshot) widen(xid uint32) uint64 {
	return s.Xmax + uint64(int64(int32(xid-uint32(s.Xmax))))
}

// oldest is the oldest transaction that may have been running, as the 32 bits that rows bear.
func (s Snapshot) oldest() string { return strconv.FormatUint(uint64(uint32(s.Xmin)), 10) }

// shortened is the snapshot with at most n running transactions. It sees less, never more: what it does not see any more is told again.
func (s Snapshot) shortened(n int) Snapshot {
	if len(s.Running) <= n {
		return s
	}
	return Snapshot{Xmin: s.Xmin, Xmax: s.Running[n], Running: s.Running[:n]}
}
