package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kapsel-dev/kapsel/internal/tlog"
)

// sealPoll is how often a node that stops looks whether the leader has sealed its leaves.
const sealPoll = 200 * time.Millisecond

// Stop drains and ends the node: no new requests, those that are held are answered; nothing more is claimed; what was
// not sent goes back; attempts in flight end and are recorded; the log is sealed. Each step has the drain timeout; what it
// could not finish is recovered by whoever takes the leases over.
func (n *Node) Stop(ctx context.Context) error {
	log := n.config.Logger
	log.Info("stopping")
	var errs []error
	step := func(name string, f func(context.Context) error) {
		stepCtx, cancel := context.WithTimeout(ctx, n.config.DrainTimeout)
		defer cancel()
		if err := f(stepCtx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			log.Warn("shutdown step not finished", "step", name, "error", err)
		}
	}
	step("finish requests", n.http.Shutdown)
	step("stop intake", n.remove("committer"))
	step("stop claiming", n.remove("claimer"))
	step("drain attempts", n.dispatcher.Stop)
	n.recorder.Close()
	step("flush the recorder", n.recorder.Wait)
	step("seal", n.seal)
	step("stop sealing", n.remove("sealer"))
	step("leave", func(ctx context.Context) error {
		err := n.remove("membership")(ctx)
		n.members.leave(ctx)
		return err
	})
	n.discard()
	log.Info("stopped")
	return errors.Join(errs...)
}

// seal has a head signed over all leaves that are recorded by now: by this node, or by the one that leads. If that one is
// dead, its lease runs out within seconds, and this node seals.
func (n *Node) seal(ctx context.Context) error {
	progress, err := n.db.LogProgress(ctx, n.db.Engine(), logID)
	if err != nil {
		return err
	}
	for end := progress.NextIndex; ; {
		if err := n.sealer.Flush(ctx); !errors.Is(err, tlog.ErrNotLeader) {
			return err
		}
		if progress, err = n.db.LogProgress(ctx, n.db.Engine(), logID); err != nil || progress.TreeSize >= end {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the node that leads: %w", ctx.Err())
		case <-time.After(sealPoll):
		}
	}
}

// remove ends one component and waits for it.
func (n *Node) remove(name string) func(context.Context) error {
	return func(context.Context) error {
		return n.supervisor.RemoveAndWait(n.tokens[name], n.config.DrainTimeout)
	}
}

// discard closes whatever is open.
func (n *Node) discard() {
	if n.stopAll != nil {
		n.stopAll()
		<-n.stopped
	}
	if n.http != nil {
		n.http.Close()
	}
	if n.listener != nil {
		n.listener.Close()
	}
	if n.sender != nil {
		n.sender.Close()
	}
	if n.db != nil {
		n.db.Close()
	}
}
