package server

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect/v2"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/fsck"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/tenant"
)

func TestSuspendedTenantsWebhooksAreRefusedAndItsDeliveriesWait(t *testing.T) {
	r := newRig(t)
	operator, a := r.operator(), r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	setState := func(state kapselv1.TenantState) {
		t.Helper()
		must(operator.tenants.UpdateTenant(t.Context(), &kapselv1.UpdateTenantRequest{
			TenantId: id.Tenant.Text(a.id), Tenant: &kapselv1.Tenant{State: state}, UpdateMask: mask("state"),
		}))(t)
	}
	setState(kapselv1.TenantState_TENANT_STATE_SUSPENDED)
	got := r.post(r.url+ingestPath+e.Id, nil, strings.NewReader("x"))
	if got.status != http.StatusForbidden || got.Code != "tenant_suspended" {
		t.Errorf("posted to a suspended tenant: %d %q", got.status, got.Code)
	}
	_, err := a.ingest.Ingest(t.Context(), &kapselv1.IngestRequest{EndpointId: e.Id})
	wantReason(t, err, connect.CodePermissionDenied, "TENANT_SUSPENDED")
	if shown := must(a.destinations.GetDestination(t.Context(), &kapselv1.GetDestinationRequest{DestinationId: d.Id}))(t).Destination; shown.State != kapselv1.DestinationState_DESTINATION_STATE_ENABLED {
		t.Errorf("its destination is shown as %s", shown.State)
	}
	if held := r.deps.Routes.Snapshot().InactiveDestinations(); len(held) != 1 {
		t.Errorf("%d destinations are held, want its one", len(held))
	}
	must(a.tenants.ListApiKeys(t.Context(), &kapselv1.ListApiKeysRequest{}))(t)
	setState(kapselv1.TenantState_TENANT_STATE_ACTIVE)
	receipt := must(a.ingest.Ingest(t.Context(), &kapselv1.IngestRequest{EndpointId: e.Id, Payload: []byte("x")}))(t).Receipt
	r.event(a, receipt.EventId, kapselv1.EventState_EVENT_STATE_DELIVERED)
}

// afterDeletion says what may be left of a deleted tenant: ids, hashes, numbers, and its audit log.
var afterDeletion = map[string]string{
	"tenants":       "select count(*) from tenants where display_name <> '' and tenant_id = $1",
	"audit_entries": "",
	"events":        "select count(*) from events where (not erased or body <> '' or headers <> '' or source_address <> '' or dedup_key <> '') and tenant_id = $1",
	"attempts":      "select count(*) from attempts where leaf <> '' and delivery_id <> attempt_id and tenant_id = $1",
	"dead_letters":  "select count(*) from dead_letters where diagnosis <> '' and tenant_id = $1",
	"cancellations": "select count(*) from cancellations where reason <> '' and tenant_id = $1",
	"redeliveries":  "",
	"erasures":      "",
	"tenant_usage":  "",
}

func TestDeletedTenantLeavesHashesOnly(t *testing.T) {
	r := newRig(t)
	operator, a, other := r.operator(), r.tenant(), r.tenant()
	kept := r.world(other)
	w := r.world(a)
	text := id.Tenant.Text(a.id)
	before := r.rows(other.id)

	deleted := must(operator.tenants.DeleteTenant(t.Context(), &kapselv1.DeleteTenantRequest{TenantId: text}))(t).Tenant
	again := must(operator.tenants.DeleteTenant(t.Context(), &kapselv1.DeleteTenantRequest{TenantId: text}))(t).Tenant
	if deleted.State != kapselv1.TenantState_TENANT_STATE_DELETING || deleted.DeleteTime == nil || deleted.EraseTime != nil || again.Etag != deleted.Etag {
		t.Errorf("deleted %v, then %v", deleted, again)
	}
	_, err := a.endpoints.ListEndpoints(t.Context(), &kapselv1.ListEndpointsRequest{})
	wantReason(t, err, connect.CodeUnauthenticated, "API_KEY_EXPIRED")
	if got := r.post(r.url+ingestPath+w.endpoint.Id, nil, strings.NewReader("x")); got.status != http.StatusNotFound {
		t.Errorf("posted to a deleted tenant: %d", got.status)
	}
	_, err = operator.tenants.UpdateTenant(t.Context(), &kapselv1.UpdateTenantRequest{TenantId: text, Tenant: &kapselv1.Tenant{}, UpdateMask: mask("state")})
	wantReason(t, err, connect.CodeFailedPrecondition, "TENANT_DELETING")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- tenant.NewDeletions(r.db, r.deps.Logger).Run(ctx) }()
	go func() {
		ended <- ledger.NewEraser(r.db, id.New(), testLogID, slog.New(slog.DiscardHandler), func(int) {}).Run(ctx)
	}()
	r.eventually(func() bool { return r.count("select count(*) from endpoint_secrets where tenant_id = $1", a.id) == 0 },
		func() string { return "its secrets are there still" })
	r.eventually(func() bool {
		// Ten minutes later, as far as the eraser can tell.
		r.exec("update erasures set requested_at = requested_at - interval '11 minutes', look_at = least(look_at, now() + interval '1 second') where finished_at is null")
		return r.count("select count(*) from tenants where erased_at is not null and tenant_id = $1", a.id) == 1
	}, func() string { return "the deletion does not end" })
	cancel()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}

	for _, table := range r.tenantTables() {
		left := r.count("select count(*) from "+table+" where tenant_id = $1", a.id)
		check, known := afterDeletion[table]
		if left > 0 && !known {
			t.Errorf("%d rows are left in %s: remove them, or say in afterDeletion why not", left, table)
		}
		if check != "" {
			if n := r.count(check, a.id); n > 0 {
				t.Errorf("%d rows of %s hold what is the tenant's", n, table)
			}
		}
	}
	report := must(fsck.Run(t.Context(), fsck.Config{DatabaseURL: r.database, LogID: testLogID, Deep: true}))(t)
	for _, check := range report.Checks {
		if check.Violations > 0 {
			t.Errorf("fsck: %s: %d violations: %v", check.Name, check.Violations, check.Shown)
		}
	}
	if len(report.Checks) < 10 {
		t.Errorf("fsck made %d checks", len(report.Checks))
	}
	gone := must(operator.tenants.GetTenant(t.Context(), &kapselv1.GetTenantRequest{TenantId: text}))(t).Tenant
	if gone.EraseTime == nil || gone.DisplayName != "" {
		t.Errorf("in the end it is %v", gone)
	}
	log := must(operator.tenants.ListAuditEntries(t.Context(), &kapselv1.ListAuditEntriesRequest{TenantId: text, PageSize: 2}))(t).Entries
	if len(log) != 2 || log[0].Action != "TenantErased" || log[0].Actor != "system" || log[1].Action != "DeleteTenant" || log[1].Actor != "operator" {
		t.Errorf("the last audit entries are %v", log)
	}
	if after := r.rows(other.id); after != before {
		t.Error("the other tenant's rows are not as before")
	}
	if got := must(other.events.GetEvent(t.Context(), &kapselv1.GetEventRequest{EventId: kept.event}))(t); got.Event.PayloadGone {
		t.Error("the other tenant's payload is gone")
	}
}
