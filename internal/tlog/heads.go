package tlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// NotifyChannel is the channel on which PostgreSQL tells of each new head, with payload "<log id> <tree size>".
const NotifyChannel = "kapsel_tree_heads"

// Heads is where those wait who need a head that is not published yet. It holds the latest head only, so a slow reader
// gets the latest and never a backlog. The sealer of this node feeds it by Publish; heads of other nodes come by Notify and
// Refresh, which whoever owns the LISTEN connection calls.
type Heads struct {
	reader *Reader

	mu      sync.Mutex
	latest  Head
	known   bool
	changed chan struct{} // closed when latest changes
}

// NewHeads makes a hub that reads other nodes' heads through reader.
func NewHeads(reader *Reader) *Heads { return &Heads{reader: reader, changed: make(chan struct{})} }

// Latest returns the latest head known, and false if none is.
func (h *Heads) Latest() (Head, bool) {
	head, known, _ := h.State()
	return head, known
}

// State is Latest for those who wait for more than a head: changed is closed when there is a newer one.
func (h *Heads) State() (head Head, known bool, changed <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.latest, h.known, h.changed
}

// Wait returns the latest head as soon as it has at least size leaves.
func (h *Heads) Wait(ctx context.Context, size int64) (Head, error) {
	for {
		head, known, changed := h.State()
		if known && head.Size >= size {
			return head, nil
		}
		select {
		case <-ctx.Done():
			return Head{}, fmt.Errorf("wait for tree size %d: %w", size, ctx.Err())
		case <-changed:
		}
	}
}

// Publish makes a head known. One that is not newer than the latest is ignored.
func (h *Heads) Publish(head Head) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known && head.Size <= h.latest.Size {
		return
	}
	h.latest, h.known = head, true
	close(h.changed)
	h.changed = make(chan struct{})
}

// Refresh reads the latest head from the database. It is for a start, for a LISTEN connection that was away, and for
// polling. A log without a head is no error.
func (h *Heads) Refresh(ctx context.Context) error {
	head, err := h.reader.Head(ctx)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	h.Publish(head)
	return nil
}

// Notify takes the payload of a notification on NotifyChannel, and reads the head if it is of this log and news.
func (h *Heads) Notify(ctx context.Context, payload string) error {
	id, size, ok := strings.Cut(payload, " ")
	logID, idErr := strconv.ParseInt(id, 10, 32)
	treeSize, sizeErr := strconv.ParseInt(size, 10, 64)
	if !ok || idErr != nil || sizeErr != nil {
		return fmt.Errorf("%.50q is not a notification of a tree head: want \"<log id> <tree size>\"", payload)
	}
	latest, known := h.Latest()
	if int32(logID) != h.reader.LogID() || known && treeSize <= latest.Size {
		return nil
	}
	return h.Refresh(ctx)
}
