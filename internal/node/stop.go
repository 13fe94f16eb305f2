package node

import (
	"context"
	"errors"
	"fmt"
)

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
	step("seal", n.sealer.Flush)
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
