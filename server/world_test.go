package server

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
)

// world is a tenant with one of everything.
type world struct {
	account
	operator account

	endpoint                 *kapselv1.Endpoint
	spare                    *kapselv1.Endpoint // without destinations
	destination, paused      *kapselv1.Destination
	event, delivery, attempt string // delivered
	waiting                  string // delivery to the paused destination
	defective                string // event whose dead letter there is
	replay, spareKey         string
	session, listened        string // of ListenService, and an attempt that it reported
	deliveryIDs              []string
}

// canary is in the payloads and names of a tenant, and nobody else's.
func (w world) canary() string { return "canary-" + w.id.String() }

func (r *rig) world(a account) world {
	r.t.Helper()
	w := world{account: a, operator: r.operator()}
	w.endpoint, _ = r.endpoint(a, &kapselv1.Endpoint{DisplayName: w.canary(), PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON,
		Verification: &kapselv1.Verification{Preset: "github"}})
	w.spare, _ = r.endpoint(a, &kapselv1.Endpoint{DisplayName: w.canary()})
	w.destination = r.destination(a, &kapselv1.Destination{EndpointId: w.endpoint.Id, Url: r.sink(200) + "/" + w.canary(), DisplayName: w.canary()})
	w.paused = r.destination(a, &kapselv1.Destination{EndpointId: w.endpoint.Id, Url: r.sink(200), DisplayName: w.canary()})
	must(a.destinations.PauseDestination(r.t.Context(), &kapselv1.PauseDestinationRequest{DestinationId: w.paused.Id}))(r.t)
	ingest := func(payload string) string {
		return must(a.ingest.Ingest(r.t.Context(), &kapselv1.IngestRequest{EndpointId: w.endpoint.Id, Payload: []byte(payload)}))(r.t).Receipt.EventId
	}
	w.event = ingest(fmt.Sprintf("{%q:%q}", "canary", w.canary()))
	w.defective = ingest("{" + w.canary())
	r.event(a, w.defective, kapselv1.EventState_EVENT_STATE_DEAD_LETTERED)
	r.eventually(func() bool {
		w.deliveryIDs = nil
		for _, d := range must(a.deliveries.ListDeliveries(r.t.Context(), &kapselv1.ListDeliveriesRequest{EventId: w.event}))(r.t).Deliveries {
			w.deliveryIDs = append(w.deliveryIDs, d.Id)
			switch {
			case d.DestinationId == w.paused.Id:
				w.waiting = d.Id
			case d.State == kapselv1.DeliveryState_DELIVERY_STATE_SUCCEEDED:
				w.delivery = d.Id
			}
		}
		return w.delivery != "" && w.waiting != ""
	}, func() string { return "no delivery is delivered" })
	w.attempt = must(a.deliveries.ListAttempts(r.t.Context(), &kapselv1.ListAttemptsRequest{
		Parent: &kapselv1.ListAttemptsRequest_DeliveryId{DeliveryId: w.delivery}}))(r.t).Attempts[0].Id
	w.replay = must(a.deliveries.ReplayDeadLetters(r.t.Context(), &kapselv1.ReplayDeadLettersRequest{
		Filter: &kapselv1.DeadLetterFilter{EndpointIds: []string{w.endpoint.Id}}}))(r.t).Replay.Id
	w.spareKey = must(a.tenants.CreateApiKey(r.t.Context(), &kapselv1.CreateApiKeyRequest{ApiKey: &kapselv1.ApiKey{
		DisplayName: w.canary(), Scopes: []kapselv1.ApiKeyScope{kapselv1.ApiKeyScope_API_KEY_SCOPE_READ}}}))(r.t).ApiKey.Id
	heard, _ := r.endpoint(a, &kapselv1.Endpoint{DisplayName: w.canary()})
	l := r.listen(a, &kapselv1.ListenRequest{EndpointIds: []string{heard.Id}})
	r.take(a, heard.Id, w.canary())
	w.session, w.listened = l.session.Id, must(l.report(l.next().AttemptId, 200))(r.t).Id
	l.end()
	must(r.deps.Seal(r.t.Context()))(r.t)
	return w
}

// marks are what no other tenant may ever see.
func (w world) marks() []string {
	return append([]string{w.canary(), id.Tenant.Text(w.id), w.endpoint.Id, w.spare.Id, w.destination.Id, w.paused.Id, w.event, w.defective,
		w.delivery, w.waiting, w.attempt, w.replay, w.spareKey, w.session, w.listened}, w.deliveryIDs...)
}

// tenantTables are those with rows of tenants, partitions left out.
func (r *rig) tenantTables() []string {
	r.t.Helper()
	rows, _ := r.db.Engine().Query(r.t.Context(), `select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
		where n.nspname = 'public' and c.relkind in ('r', 'p') and not c.relispartition
			and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped) order by 1`)
	return must(pgx.CollectRows(rows, pgx.RowTo[string]))(r.t)
}

// rows is all that the database has of a tenant, but for figures that change by themselves.
func (r *rig) rows(tenantID uuid.UUID) string {
	r.t.Helper()
	var all strings.Builder
	for _, table := range r.tenantTables() {
		if slices.Contains([]string{"destination_traffic", "destination_health", "tenant_usage"}, table) {
			continue
		}
		rows, _ := r.db.Engine().Query(r.t.Context(), fmt.Sprintf("select (to_jsonb(t) - 'last_used_at')::text from %s t where tenant_id = $1", table), tenantID)
		found := must(pgx.CollectRows(rows, pgx.RowTo[string]))(r.t)
		slices.Sort(found)
		fmt.Fprintf(&all, "%s\n%s\n", table, strings.Join(found, "\n"))
	}
	return all.String()
}

func (r *rig) count(sql string, arguments ...any) (n int) {
	r.t.Helper()
	if err := r.db.Engine().QueryRow(r.t.Context(), sql, arguments...).Scan(&n); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
	return n
}
