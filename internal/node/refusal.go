package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/telemetry"
	"github.com/kapsel-dev/kapsel/internal/tenant"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	refusedAction = "SealingRefused"
	auditTimeout  = 5 * time.Second
	// maxAuditDetail bounds a reason in the audit log.
	maxAuditDetail = 1000
)

// seals runs the sealer. That it refuses is an alarm: besides the line in the log, /readyz says so, the gauge
// kapsel_sealer_refused is 1, and the operator's audit log has an entry.
func (n *Node) seals(ctx context.Context) error {
	err := n.sealer.Run(ctx)
	if refusal := n.sealer.Refusal(); errors.Is(err, tlog.ErrRefused) && refusal != nil {
		if auditErr := n.auditRefusal(ctx, refusal); auditErr != nil {
			n.config.Logger.Warn("the refusal to seal is not in the operator's audit log", slog.Any("error", auditErr))
		}
	}
	return err
}

func (n *Node) auditRefusal(ctx context.Context, refusal *tlog.Refusal) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTimeout)
	defer cancel()
	if err := n.db.EnsureOperatorTenant(ctx, n.db.Engine()); err != nil {
		return fmt.Errorf("make the operator: %w", err)
	}
	return n.db.WriteAuditEntry(ctx, n.db.Engine(), store.WriteAuditEntryParams{
		TenantID: tenant.OperatorID, EntryID: id.New(), Actor: "system", Action: refusedAction, ResourceID: id.Node.Text(n.id),
		Detail: store.CleanText(refusal.Reason.Error(), maxAuditDetail),
	})
}

// concern is what an operator must look at although the node takes webhooks, nil if there is nothing. Not to be ready would
// not help: intake and delivery lose nothing without a seal, and every node of a log that is damaged refuses.
func (n *Node) concern() error {
	if n.sealer == nil {
		return nil
	}
	refusal := n.sealer.Refusal()
	if refusal == nil {
		return nil
	}
	return fmt.Errorf("this node does not seal the log since %s: %w", refusal.Since.UTC().Format(time.RFC3339), refusal.Reason)
}

func (n *Node) showRefusal(m *telemetry.Meter) {
	m.Gauge("kapsel.sealer.refused", "", "Whether the sealer of this node has refused to go on, and an operator must look: 1 or 0.", func(observe telemetry.Observe) {
		if n.concern() != nil {
			observe(1)
		} else {
			observe(0)
		}
	})
}
