package server

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
	"google.golang.org/protobuf/types/known/timestamppb"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/tlog"
)

const (
	// maxWatchers of tree heads on a node: some 40 KiB each.
	maxWatchers = 5000
	// updateAge is for how long an update is given to others who need the same: cosignatures come in behind a head.
	updateAge = time.Second
	// maxUpdates bounds those that are kept. All who follow the log need the same one; many are from made-up sizes.
	maxUpdates = 64

	updateTimeout = 10 * time.Second
)

// WatchTreeHeads sends the latest head at once, and from then on the latest whenever there is a newer one. Who reads slowly
// misses heads and gets one proof over all of them.
func (s *attestationService) WatchTreeHeads(ctx context.Context, request *kapselv1.WatchTreeHeadsRequest, stream kapselv1connect.AttestationServiceWatchTreeHeadsServerStream) error {
	if err := s.checkLog(request.LogId); err != nil {
		return err
	}
	if !s.feed.enter() {
		return &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_OVERLOADED, retry: overloadedRetry,
			message: fmt.Sprintf("%d streams of tree heads are open on this node, which is as many as it allows: try again, or read the checkpoint", maxWatchers)}
	}
	defer s.feed.leave()
	w := watcher{feed: s.feed, known: unknownSize, stream: stream, lasting: lasting(ctx)}
	if request.KnownSize != nil {
		w.known = *request.KnownSize
		if err := s.checkKnown(ctx, w.known); err != nil {
			return err
		}
	}
	return w.follow(ctx)
}

// checkKnown refuses a size that no head has reached. Another node may have published it a moment ago, so the database
// has the last word.
func (s *attestationService) checkKnown(ctx context.Context, known int64) error {
	if latest, found := s.Heads.Latest(); found && known <= latest.Size {
		return nil
	}
	if err := s.Heads.Refresh(ctx); err != nil {
		return err
	}
	if latest, found := s.Heads.Latest(); !found || known > latest.Size {
		return refuseField(kapselv1.ErrorReason_ERROR_REASON_INVALID_REQUEST, "known_size",
			"the log has %d leaves that a head covers. If you have a signed head of %d leaves, the log was rolled back or forked: "+
				"keep both heads as evidence", latest.Size, known)
	}
	return nil
}

// unknownSize: the watcher has no head yet.
const unknownSize = -1

// watcher is one open stream.
type watcher struct {
	feed    *headFeed
	known   int64 // the size sent last, or that the client began with
	sent    bool
	stream  kapselv1connect.AttestationServiceWatchTreeHeadsServerStream
	lasting *lastingStream
}

func (w *watcher) follow(ctx context.Context) error {
	heartbeat := time.NewTimer(w.feed.heartbeat)
	defer heartbeat.Stop()
	for {
		head, found, changed := w.feed.api.Heads.State()
		if found && (!w.sent || head.Size > w.known) {
			update, err := w.feed.update(ctx, w.known, head)
			if err != nil {
				return err
			}
			if err := w.send(update); err != nil {
				return err
			}
			w.known, w.sent = head.Size, true
			heartbeat.Reset(w.feed.heartbeat)
		}
		select {
		case <-changed:
		case <-heartbeat.C:
			beat := &kapselv1.Heartbeat{Time: timestamppb.Now()}
			if err := w.send(&kapselv1.WatchTreeHeadsResponse{Update: &kapselv1.WatchTreeHeadsResponse_Heartbeat{Heartbeat: beat}}); err != nil {
				return err
			}
			heartbeat.Reset(w.feed.heartbeat)
		case <-w.feed.api.Stopping:
			return &refusal{reason: kapselv1.ErrorReason_ERROR_REASON_SHUTTING_DOWN, retry: overloadedRetry,
				message: "the node is stopping: watch again, with the last size as known_size"}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (w *watcher) send(message *kapselv1.WatchTreeHeadsResponse) error {
	w.lasting.extend()
	return w.stream.Send(message)
}

// headFeed makes updates, once for all watchers who need the same.
type headFeed struct {
	api       *api
	heartbeat time.Duration
	most      int64
	watchers  atomic.Int64
	making    singleflight.Group

	mu   sync.Mutex
	made map[span]madeUpdate
}

// span is what an update leads over.
type span struct{ from, to int64 }

type madeUpdate struct {
	message *kapselv1.WatchTreeHeadsResponse
	at      time.Time
}

func newHeadFeed(a *api) *headFeed {
	return &headFeed{api: a, heartbeat: heartbeatInterval, most: maxWatchers, made: make(map[span]madeUpdate)}
}

// enter takes a place, and reports whether there was one.
func (f *headFeed) enter() bool {
	if f.watchers.Add(1) > f.most {
		f.watchers.Add(-1)
		return false
	}
	return true
}

func (f *headFeed) leave() { f.watchers.Add(-1) }

// update is the message that leads from a size to a head.
func (f *headFeed) update(ctx context.Context, from int64, head tlog.Head) (*kapselv1.WatchTreeHeadsResponse, error) {
	s := span{from, head.Size}
	if message := f.kept(s); message != nil {
		return message, nil
	}
	result := f.making.DoChan(fmt.Sprint(s), func() (any, error) {
		if message := f.kept(s); message != nil { // made between the look and now
			return message, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), updateTimeout)
		defer cancel()
		message, err := f.make(ctx, from, head)
		if err == nil {
			f.keep(s, message)
		}
		return message, err
	})
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*kapselv1.WatchTreeHeadsResponse), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *headFeed) kept(s span) *kapselv1.WatchTreeHeadsResponse {
	f.mu.Lock()
	defer f.mu.Unlock()
	if made := f.made[s]; time.Since(made.at) < updateAge {
		return made.message
	}
	return nil
}

func (f *headFeed) keep(s span, message *kapselv1.WatchTreeHeadsResponse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.made) >= maxUpdates {
		clear(f.made)
	}
	f.made[s] = madeUpdate{message, time.Now()}
}

func (f *headFeed) make(ctx context.Context, from int64, head tlog.Head) (*kapselv1.WatchTreeHeadsResponse, error) {
	service := attestationService{api: f.api}
	treeHead, err := service.describeHead(ctx, head)
	if err != nil {
		return nil, err
	}
	update := &kapselv1.TreeHeadUpdate{TreeHead: treeHead}
	if from != unknownSize {
		proof, err := f.api.Reader.ConsistencyProof(ctx, from, head.Size)
		if err != nil {
			return nil, err
		}
		update.ConsistencyProof = &kapselv1.ConsistencyProof{FromSize: from, ToSize: head.Size, Hashes: hashes(proof)}
	}
	return &kapselv1.WatchTreeHeadsResponse{Update: &kapselv1.WatchTreeHeadsResponse_Head{Head: update}}, nil
}
