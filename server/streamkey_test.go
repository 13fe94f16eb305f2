package server

import (
	"testing"

	"connectrpc.com/connect/v2"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
)

// A stream may live for days, its key not: it ends with the key, and with the right to read.
func TestStreamEndsWithItsKey(t *testing.T) {
	for name, end := range map[string]struct {
		code   connect.Code
		reason string
		by     func(r *rig, a account)
	}{
		"revoked": {connect.CodeUnauthenticated, "API_KEY_EXPIRED", func(r *rig, a account) {
			r.exec("update api_keys set revoked_at = now() where tenant_id = $1", a.id) // on another node, whose notice is lost
		}},
		"its scope was taken": {connect.CodePermissionDenied, "SCOPE_MISSING", func(r *rig, a account) {
			r.exec("update api_keys set scopes = '{ingest}' where tenant_id = $1", a.id)
		}},
		"its tenant was deleted": {connect.CodeUnauthenticated, "API_KEY_EXPIRED", func(r *rig, a account) {
			must(r.operator().tenants.DeleteTenant(t.Context(), &kapselv1.DeleteTenantRequest{TenantId: id.Tenant.Text(a.id)}))(t)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			a := r.tenant("read")
			stream, err := a.events.WatchEvents(t.Context(), &kapselv1.WatchEventsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			end.by(r, a)
			for err == nil {
				_, err = stream.Receive()
			}
			wantReason(t, err, end.code, end.reason)
		})
	}
}
