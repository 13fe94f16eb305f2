package server

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/store"
)

type rpcKey struct{}

// actorOperator is what an audit log says of any key of the operator; which one stands in the row beside it.
const actorOperator = "operator"

// audit writes down, in the transaction of a change, who makes it, and from where. resource is the id of what is changed;
// detail says for people what is new, and never holds a secret, a payload, or what may be one: a URL, a header.
func (a *api) audit(ctx context.Context, tx pgx.Tx, tenantID uuid.UUID, resource, detail string) error {
	entry := a.auditEntry(ctx, tenantID, resource, detail)
	if err := a.DB.WriteAuditEntry(ctx, tx, entry); err != nil {
		return fmt.Errorf("write audit entry: %w", err)
	}
	return nil
}

func (a *api) auditEntry(ctx context.Context, tenantID uuid.UUID, resource, detail string) store.WriteAuditEntryParams {
	who := caller(ctx)
	action, _ := ctx.Value(rpcKey{}).(string)
	actor := id.APIKey.Text(who.KeyID)
	if who.IsOperator() {
		actor = actorOperator
	}
	return store.WriteAuditEntryParams{
		TenantID: tenantID, EntryID: id.New(), Actor: actor, ActorKey: &who.KeyID, Action: action,
		ResourceID: resource, Detail: detail, SourceAddress: peer(ctx),
	}
}
