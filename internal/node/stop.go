package node

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// lastShare of the grace is kept for the steps after the drain: results that are here must be recorded, whatever hangs.
	lastShare = 4
	// closeTimeout bounds the end of what has no context: connections that are still in use.
	closeTimeout = 5 * time.Second
)

// Stop drains and ends the node: it says that it is not ready, and goes on for the pre-stop delay; no new requests, those
// that are held are answered; nothing more is claimed; what was not sent goes back; attempts in flight end and are recorded;
// the log is sealed. Each step has the drain timeout, and all of them together the grace. What they could not finish is left
// to its lease: other nodes take it over as soon as they miss this one's heartbeat.
func (n *Node) Stop(ctx context.Context) error {
	log := n.config.Logger
	log.Info("stopping")
	n.stopping.Store(true)
	select {
	case <-ctx.Done():
	case <-time.After(n.config.PreStopDelay):
	}
	ctx, cancel := context.WithTimeout(ctx, n.config.Grace)
	defer cancel()
	draining, cancel := context.WithTimeout(ctx, n.config.Grace-n.config.Grace/lastShare)
	defer cancel()

	var errs []error
	step := func(ctx context.Context, name string, f func(context.Context) error) {
		ctx, cancel := context.WithTimeout(ctx, n.config.DrainTimeout)
		defer cancel()
		if err := f(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			log.Warn("shutdown step not finished", "step", name, "error", err)
		}
	}
	n.drain() // streams end, which the next step would wait for
	step(draining, "finish requests", n.http.Shutdown)
	step(draining, "stop intake", n.remove("committer")) // a node has only the components of its roles
	step(draining, "stop claiming", n.remove("claimer"))
	step(draining, "drain attempts", n.dispatcher.Stop)
	n.recorder.Close()
	step(ctx, "flush the recorder", n.recorder.Wait)
	step(ctx, "write usage", n.limits.Write)
	if n.has(RoleSeal) {
		step(ctx, "seal", n.seal)
		step(ctx, "stop sealing", n.remove("sealer"))
	}
	step(ctx, "leave", func(ctx context.Context) error {
		return errors.Join(n.remove("membership")(ctx), n.members.leave(ctx))
	})
	if head, known := n.heads.Latest(); known {
		n.sealSpans.covered(head.Size)
	}
	n.config.Tracer.Close(ctx)
	n.discard()
	log.Info("stopped")
	return errors.Join(errs...)
}

// seal has a head signed over all leaves that are recorded by now, by this node or by the one that leads.
func (n *Node) seal(ctx context.Context) error {
	_, err := n.sealer.SealAll(ctx)
	return err
}

// remove ends one component, if there is such a one, and waits for it. The context must have a deadline.
func (n *Node) remove(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		token, runs := n.tokens[name]
		if !runs {
			return nil
		}
		deadline, _ := ctx.Deadline()
		return n.supervisor.RemoveAndWait(token, max(time.Until(deadline), time.Millisecond)) // 0 would be for ever
	}
}

// discard closes whatever is open.
func (n *Node) discard() {
	n.drain()
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
	if n.admin != nil {
		n.admin.Close()
	}
	if n.sender != nil {
		n.sender.Close()
	}
	if n.db != nil {
		closed := make(chan struct{})
		go func() {
			n.db.Close() // waits for connections in use
			close(closed)
		}()
		select {
		case <-closed:
		case <-time.After(closeTimeout):
			n.config.Logger.Warn("database connections are still in use, they end with the process")
		}
	}
}
