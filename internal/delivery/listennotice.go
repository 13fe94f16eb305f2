package delivery

import (
	"context"
	"strings"
	"sync"

	"github.com/google/uuid"
)

// The node that a webhook comes to, or a report, is mostly another one than the node with the session's stream. It tells
// that one by a notification of the database, after its COMMIT and off its way. What is not heard is found by a look at the
// queue, at the end of an attempt's time, or when the sessions are touched.

// ListenChannel is where nodes tell each other of listening sessions: a destination's id says that something was committed
// for it, followed by "settled" and an attempt's id that its result was taken elsewhere, by "opened" and a stream's id that
// the session has a new stream.
const ListenChannel = "kapsel_listen"

const (
	noticeSettled = "settled"
	noticeOpened  = "opened"
	// maxListenNotices may wait for the statement before.
	maxListenNotices = 8192
)

// listenNotices are those to be sent.
type listenNotices struct {
	mu    sync.Mutex
	noted map[string]struct{}
	wake  chan struct{}
}

func newListenNotices() *listenNotices {
	return &listenNotices{noted: make(map[string]struct{}), wake: make(chan struct{}, 1)}
}

func (n *listenNotices) note(words ...string) {
	n.mu.Lock()
	if len(n.noted) < maxListenNotices {
		n.noted[strings.Join(words, " ")] = struct{}{}
	}
	n.mu.Unlock()
	poke(n.wake)
}

func (n *listenNotices) take() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	payloads := make([]string, 0, len(n.noted))
	for payload := range n.noted {
		payloads = append(payloads, payload)
	}
	clear(n.noted)
	return payloads
}

// poke wakes whoever waits, unless that was done already.
func poke(wake chan struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}

// NoteListened says that something was committed for a listening destination. It does not block.
func (d *Dispatcher) NoteListened(destinationID uuid.UUID) {
	if listener, here := d.listened.Load(destinationID); here {
		poke(listener.(*Listener).wake)
		return
	}
	d.notices.note(destinationID.String())
}

// Tell sends what this node has to say about listening sessions until ctx ends: at once, and together what comes while a
// statement is under way. Every node does.
func (l *Listeners) Tell(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.dispatcher.notices.wake:
		}
		if err := l.db.NotifyListeners(ctx, l.db.Engine(), l.dispatcher.notices.take()); err != nil && ctx.Err() == nil {
			l.log.Warn("other nodes not told of listening sessions, they find out", "error", err)
		}
	}
}

// Told takes a notification on ListenChannel. An empty one says that some may have been lost. It does not block.
func (l *Listeners) Told(payload string) {
	words := strings.Fields(payload)
	if len(words) == 0 {
		poke(l.lookAgain)
		return
	}
	destinationID, err := uuid.Parse(words[0])
	if err != nil {
		return
	}
	found, here := l.dispatcher.listened.Load(destinationID)
	if !here {
		return
	}
	listener := found.(*Listener)
	if len(words) < 3 {
		poke(listener.wake)
		return
	}
	id, err := uuid.Parse(words[2])
	switch {
	case err != nil:
	case words[1] == noticeSettled:
		listener.reported(id)
	case words[1] == noticeOpened && id != listener.streamID:
		poke(l.lookAgain) // which of the two is the newer one is written in the session
	}
}
