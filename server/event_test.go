package server

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
)

// send takes a webhook in over Connect and returns its event's id.
func (r *rig) send(a account, e *kapselv1.Endpoint, payload string, headers ...*kapselv1.Header) string {
	r.t.Helper()
	response, err := a.ingest.Ingest(r.t.Context(), &kapselv1.IngestRequest{EndpointId: e.Id, Payload: []byte(payload), Headers: headers})
	if err != nil {
		r.t.Fatalf("ingest: %v", err)
	}
	return response.Receipt.EventId
}

func (r *rig) exec(sql string, arguments ...any) {
	r.t.Helper()
	if _, err := r.db.Engine().Exec(r.t.Context(), sql, arguments...); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
}

func TestDeliveryThatSucceeds(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	eventID := r.send(a, e, "hello")
	r.event(a, eventID, kapselv1.EventState_EVENT_STATE_DELIVERED)

	list := must(a.deliveries.ListDeliveries(t.Context(), &kapselv1.ListDeliveriesRequest{EventId: eventID}))(t).Deliveries
	if len(list) != 1 {
		t.Fatalf("%d deliveries, want 1", len(list))
	}
	delivery := must(a.deliveries.GetDelivery(t.Context(), &kapselv1.GetDeliveryRequest{DeliveryId: list[0].Id}))(t).Delivery
	if delivery.State != kapselv1.DeliveryState_DELIVERY_STATE_SUCCEEDED || delivery.Attempts != 1 || delivery.EventId != eventID ||
		delivery.EndpointId != e.Id || delivery.DestinationId != d.Id || delivery.CloseTime == nil || delivery.NextAttemptTime != nil {
		t.Errorf("got %v", delivery)
	}
	attempt := must(a.deliveries.GetAttempt(t.Context(), &kapselv1.GetAttemptRequest{AttemptId: delivery.LastAttempt.Id}))(t).Attempt
	if attempt.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED || attempt.StatusCode != 200 || attempt.Number != 1 || attempt.Url != d.Url ||
		string(attempt.ResponseExcerpt) != "thank you" || attempt.ResponseBytes != 9 || attempt.LogId != "1" || attempt.DestinationId != d.Id ||
		attempt.StartTime == nil || attempt.Duration == nil || attempt.DeliveryId != delivery.Id {
		t.Errorf("got %v", attempt)
	}
	r.eventually(func() bool {
		return must(a.deliveries.GetAttempt(t.Context(), &kapselv1.GetAttemptRequest{AttemptId: attempt.Id}))(t).Attempt.Sealed
	}, func() string { return "the attempt is not sealed" })
}

func TestDeliveryThatIsGivenUp(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	fine := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(500), RetryPolicy: &kapselv1.RetryPolicy{MaxAttempts: 1}})
	eventID := r.send(a, e, "hello")
	r.event(a, eventID, kapselv1.EventState_EVENT_STATE_DEAD_LETTERED)

	states := map[kapselv1.DeliveryState]string{}
	for _, delivery := range must(a.deliveries.ListDeliveries(t.Context(), &kapselv1.ListDeliveriesRequest{EventId: eventID}))(t).Deliveries {
		states[delivery.State] = delivery.Id
		if delivery.CloseTime == nil || delivery.LastAttempt == nil || delivery.Attempts != 1 {
			t.Errorf("got %v", delivery)
		}
	}
	if len(states) != 2 || states[kapselv1.DeliveryState_DELIVERY_STATE_SUCCEEDED] == "" || states[kapselv1.DeliveryState_DELIVERY_STATE_DEAD_LETTERED] == "" {
		t.Errorf("states %v, want one that succeeded and one that is dead", states)
	}
	only := must(a.deliveries.ListDeliveries(t.Context(), &kapselv1.ListDeliveriesRequest{EventId: eventID, DestinationId: fine.Id}))(t).Deliveries
	if len(only) != 1 || only[0].Id != states[kapselv1.DeliveryState_DELIVERY_STATE_SUCCEEDED] {
		t.Errorf("of one destination: %v", only)
	}

	// Both attempts are listed, and not the leaf of the dead letter; a page at a time.
	request := &kapselv1.ListAttemptsRequest{Parent: &kapselv1.ListAttemptsRequest_EventId{EventId: eventID}, PageSize: 1}
	first := must(a.deliveries.ListAttempts(t.Context(), request))(t)
	request.PageToken = first.NextPageToken
	second := must(a.deliveries.ListAttempts(t.Context(), request))(t)
	if len(first.Attempts) != 1 || len(second.Attempts) != 1 || second.NextPageToken != "" || first.Attempts[0].LeafIndex >= second.Attempts[0].LeafIndex {
		t.Errorf("pages %v and %v", first, second)
	}
	packages := must(a.attestation.GetProofPackage(t.Context(), &kapselv1.GetProofPackageRequest{
		Subject: &kapselv1.GetProofPackageRequest_EventId{EventId: eventID}, Wait: durationpb.New(10 * time.Second),
	}))(t).Packages
	if len(packages) != 3 {
		t.Fatalf("%d proof packages, want those of 2 attempts and a dead letter", len(packages))
	}
	for _, p := range packages {
		_, err := a.deliveries.GetAttempt(t.Context(), &kapselv1.GetAttemptRequest{AttemptId: p.AttemptId})
		if dead := bytes.Contains(p.Json, []byte("dead_letter")) || bytes.Contains(p.Json, []byte("deadLetter")); dead != (connect.CodeOf(err) == connect.CodeNotFound) {
			t.Errorf("GetAttempt of leaf %d (dead letter: %v): %v", p.LeafIndex, dead, err)
		}
	}
}

func TestDeliveriesThatAreLive(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	failing := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(503), RetryPolicy: &kapselv1.RetryPolicy{Base: durationpb.New(time.Hour)}})
	paused := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200), State: kapselv1.DestinationState_DESTINATION_STATE_PAUSED})
	eventID := r.send(a, e, "hello")
	byDestination := map[string]*kapselv1.Delivery{}
	r.eventually(func() bool {
		for _, delivery := range must(a.deliveries.ListDeliveries(t.Context(), &kapselv1.ListDeliveriesRequest{EventId: eventID}))(t).Deliveries {
			byDestination[delivery.DestinationId] = delivery
		}
		// An attempt may be read a moment before the end of its delivery's lease.
		got := byDestination[failing.Id]
		return got.GetAttempts() == 1 && got.State == kapselv1.DeliveryState_DELIVERY_STATE_PENDING
	}, func() string {
		return fmt.Sprintf("failing: %v, want a failed attempt and one to come", byDestination[failing.Id])
	})
	if got := byDestination[failing.Id]; time.Until(got.NextAttemptTime.AsTime()) < 50*time.Minute ||
		got.CloseTime != nil || got.LastAttempt.StatusCode != 503 {
		t.Errorf("failing: %v", got)
	}
	if got := byDestination[paused.Id]; got.State != kapselv1.DeliveryState_DELIVERY_STATE_HELD || got.NextAttemptTime != nil || got.StateDetail == "" {
		t.Errorf("paused: %v", got)
	}
	r.event(a, eventID, kapselv1.EventState_EVENT_STATE_PENDING)

	r.exec("update delivery_queue set lease_owner = $1, due_at = now() + interval '1 minute' where tenant_id = $2", id.New(), a.id)
	got := must(a.deliveries.GetDelivery(t.Context(), &kapselv1.GetDeliveryRequest{DeliveryId: byDestination[failing.Id].Id}))(t).Delivery
	if got.State != kapselv1.DeliveryState_DELIVERY_STATE_IN_FLIGHT || got.NextAttemptTime != nil {
		t.Errorf("leased: %v", got)
	}
}

func TestCancelledDelivery(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200), State: kapselv1.DestinationState_DESTINATION_STATE_PAUSED})
	eventID := r.send(a, e, "hello")
	r.event(a, eventID, kapselv1.EventState_EVENT_STATE_PENDING)
	r.exec(`with gone as (delete from delivery_queue where tenant_id = $1 returning *)
		insert into cancellations (tenant_id, delivery_id, event_id, destination_id, attempts, reason)
		select tenant_id, delivery_id, event_id, destination_id, attempts, 'changed my mind' from gone`, a.id)
	r.event(a, eventID, kapselv1.EventState_EVENT_STATE_CANCELLED)
	list := must(a.deliveries.ListDeliveries(t.Context(), &kapselv1.ListDeliveriesRequest{EventId: eventID}))(t).Deliveries
	if len(list) != 1 || list[0].State != kapselv1.DeliveryState_DELIVERY_STATE_CANCELLED || list[0].StateDetail != "changed my mind" ||
		list[0].EndpointId != e.Id || list[0].DestinationId != d.Id || list[0].CloseTime == nil {
		t.Errorf("got %v", list)
	}
}

// endings closes destinations one after the other: an id, how it ended, and so on.
func endings(pairs ...any) map[uuid.UUID]ending {
	var f fate
	for i := 0; i < len(pairs); i += 2 {
		f.close(pairs[i].(uuid.UUID), pairs[i+1].(ending))
	}
	return f.closed
}

func TestWhatBecomesOfAnEvent(t *testing.T) {
	one, two := id.New(), id.New()
	for name, test := range map[string]struct {
		fate   fate
		defect bool
		want   kapselv1.EventState
	}{
		"nothing matched":        {fate{}, false, kapselv1.EventState_EVENT_STATE_UNMATCHED},
		"live beside dead":       {fate{live: true, closed: endings(one, deadLettered)}, false, kapselv1.EventState_EVENT_STATE_PENDING},
		"all delivered":          {fate{closed: endings(one, delivered, two, delivered)}, false, kapselv1.EventState_EVENT_STATE_DELIVERED},
		"one dead":               {fate{closed: endings(one, delivered, two, deadLettered)}, false, kapselv1.EventState_EVENT_STATE_DEAD_LETTERED},
		"one cancelled":          {fate{closed: endings(one, delivered, two, cancelled)}, false, kapselv1.EventState_EVENT_STATE_CANCELLED},
		"dead beside cancelled":  {fate{closed: endings(one, cancelled, two, deadLettered)}, false, kapselv1.EventState_EVENT_STATE_DEAD_LETTERED},
		"given up as a whole":    {fate{whole: true}, false, kapselv1.EventState_EVENT_STATE_DEAD_LETTERED},
		"not yet given up":       {fate{live: true}, true, kapselv1.EventState_EVENT_STATE_DEAD_LETTERED},
		"dead, then replayed":    {fate{closed: endings(one, deadLettered, one, delivered)}, false, kapselv1.EventState_EVENT_STATE_DELIVERED},
		"delivered, replay dead": {fate{closed: endings(one, delivered, one, deadLettered)}, false, kapselv1.EventState_EVENT_STATE_DELIVERED},
	} {
		if got := test.fate.state(test.defect); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestEventsAreListedByFilter(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	kind := func(value string) *kapselv1.Header { return &kapselv1.Header{Name: "X-Type", Value: value} }
	key := func(value string) *kapselv1.Header { return &kapselv1.Header{Name: "Idempotency-Key", Value: value} }
	byHeader := &kapselv1.EventTypeSource{Kind: kapselv1.EventTypeSourceKind_EVENT_TYPE_SOURCE_KIND_HEADER, Header: "X-Type"}
	e1, _ := r.endpoint(a, &kapselv1.Endpoint{EventTypeSource: byHeader})
	e2, _ := r.endpoint(a, &kapselv1.Endpoint{EventTypeSource: byHeader, PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON})
	paid := r.send(a, e1, "1", kind("invoice.paid"), key("k-1"))
	void := r.send(a, e1, "2", kind("invoice.void"), key("k-2"))
	user := r.send(a, e2, "3", kind("user"), key("other"))
	broken := r.send(a, e2, "{", kind("user"))
	now := time.Now()
	for name, test := range map[string]struct {
		filter *kapselv1.EventFilter
		want   []string
	}{
		"all":           {nil, []string{broken, user, void, paid}},
		"endpoint":      {&kapselv1.EventFilter{EndpointIds: []string{e1.Id}}, []string{void, paid}},
		"type":          {&kapselv1.EventFilter{EventTypes: []string{"user"}}, []string{broken, user}},
		"types":         {&kapselv1.EventFilter{EventTypes: []string{"invoice.*", "nothing"}}, []string{void, paid}},
		"any type":      {&kapselv1.EventFilter{EventTypes: []string{"*"}}, []string{broken, user, void, paid}},
		"no type":       {&kapselv1.EventFilter{EventTypes: []string{"inv"}}, nil},
		"like pattern":  {&kapselv1.EventFilter{EventTypes: []string{"%*"}}, nil},
		"state":         {&kapselv1.EventFilter{States: []kapselv1.EventState{kapselv1.EventState_EVENT_STATE_DEAD_LETTERED}}, []string{broken}},
		"key":           {&kapselv1.EventFilter{IdText: "k-"}, []string{void, paid}},
		"id":            {&kapselv1.EventFilter{IdText: user}, []string{user}},
		"id's kind":     {&kapselv1.EventFilter{IdText: "evt_"}, []string{broken, user, void, paid}},
		"id's begin":    {&kapselv1.EventFilter{IdText: paid[:8]}, []string{broken, user, void, paid}},
		"no id":         {&kapselv1.EventFilter{IdText: "evt_zzz"}, nil},
		"since":         {&kapselv1.EventFilter{Received: &kapselv1.TimeRange{StartTime: timestamppb.New(now.Add(-time.Minute))}}, []string{broken, user, void, paid}},
		"in the future": {&kapselv1.EventFilter{Received: &kapselv1.TimeRange{StartTime: timestamppb.New(now.Add(time.Minute))}}, nil},
		"before":        {&kapselv1.EventFilter{Received: &kapselv1.TimeRange{EndTime: timestamppb.New(now.Add(-time.Minute))}}, nil},
		"far future":    {&kapselv1.EventFilter{Received: &kapselv1.TimeRange{EndTime: &timestamppb.Timestamp{Seconds: 253402300799}}}, []string{broken, user, void, paid}},
	} {
		t.Run(name, func(t *testing.T) {
			request := &kapselv1.ListEventsRequest{Filter: test.filter, PageSize: 3}
			var got []string
			for {
				response := must(a.events.ListEvents(t.Context(), request))(t)
				for _, event := range response.Events {
					got = append(got, event.Id)
				}
				if request.PageToken = response.NextPageToken; request.PageToken == "" {
					break
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestIngestOverConnect(t *testing.T) {
	r := newRig(t)
	a := r.tenant("ingest", "manage", "read")
	e, _ := r.endpoint(a, &kapselv1.Endpoint{Verification: github, MaxBodyBytes: 5 << 20}) // the API key stands for its signature
	disabled, _ := r.endpoint(a, &kapselv1.Endpoint{State: kapselv1.EndpointState_ENDPOINT_STATE_DISABLED})
	large := strings.Repeat("x", 5<<20)
	event := r.event(a, r.send(a, e, large, &kapselv1.Header{Name: "X-Github-Delivery", Value: "d-1"}), kapselv1.EventState_EVENT_STATE_UNMATCHED)
	if event.PayloadBytes != 5<<20 || event.DeduplicationKey != "d-1" {
		t.Errorf("got %v", event)
	}
	_, err := a.ingest.Ingest(t.Context(), &kapselv1.IngestRequest{EndpointId: e.Id, Payload: []byte(large + "x")})
	wantReason(t, err, connect.CodeResourceExhausted, "PAYLOAD_TOO_LARGE")
	_, err = a.ingest.Ingest(t.Context(), &kapselv1.IngestRequest{EndpointId: disabled.Id})
	wantReason(t, err, connect.CodeFailedPrecondition, "ENDPOINT_DISABLED")
	wide := make([]*kapselv1.Header, 9)
	for i := range wide {
		wide[i] = &kapselv1.Header{Name: "X-Wide", Value: strings.Repeat("x", 8000)}
	}
	_, err = a.ingest.Ingest(t.Context(), &kapselv1.IngestRequest{EndpointId: e.Id, Headers: wide})
	wantReason(t, err, connect.CodeResourceExhausted, "HEADERS_TOO_LARGE")

	key := []*kapselv1.Header{{Name: "idempotency-key", Value: "same"}}
	results := must(a.ingest.IngestBatch(t.Context(), &kapselv1.IngestBatchRequest{Webhooks: []*kapselv1.IngestRequest{
		{EndpointId: e.Id, Payload: []byte("1"), Headers: key},
		{EndpointId: id.Endpoint.Text(id.New())},
		{EndpointId: disabled.Id},
		{EndpointId: e.Id, Payload: []byte("2"), Headers: key},
		{EndpointId: e.Id, Payload: []byte("3")},
	}}))(t).Results
	if len(results) != 5 || results[1].GetError().GetReason() != kapselv1.ErrorReason_ERROR_REASON_ENDPOINT_NOT_FOUND ||
		results[1].GetError().GetCode() != 5 || results[2].GetError().GetReason() != kapselv1.ErrorReason_ERROR_REASON_ENDPOINT_DISABLED {
		t.Fatalf("got %v", results)
	}
	first, repeat := results[0].GetReceipt(), results[3].GetReceipt()
	if first.GetEventId() == "" || first.EventId != repeat.GetEventId() || first.Duplicate == repeat.Duplicate {
		t.Errorf("the same key twice: %v and %v", first, repeat)
	}
	if third := results[4].GetReceipt(); third.GetDuplicate() || third.GetState() != kapselv1.ReceiptState_RECEIPT_STATE_ACCEPTED {
		t.Errorf("got %v", third)
	}
	_, err = a.ingest.IngestBatch(t.Context(), &kapselv1.IngestBatchRequest{Webhooks: []*kapselv1.IngestRequest{{EndpointId: "nonsense"}}})
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_REQUEST")
}

// The library that checks schemas panics at such a number, and each webhook of a batch has a goroutine of its own.
func TestNoPayloadEndsTheProcess(t *testing.T) {
	r := newRig(t)
	a := r.tenant("ingest", "manage")
	e, _ := r.endpoint(a, &kapselv1.Endpoint{
		PayloadFormat: kapselv1.PayloadFormat_PAYLOAD_FORMAT_JSON, JsonSchema: `{"multipleOf":0.01}`, MaxBodyBytes: 5 << 20,
	})
	number := []byte("0." + strings.Repeat("7", 1_100_000))
	results := must(a.ingest.IngestBatch(t.Context(), &kapselv1.IngestBatchRequest{
		Webhooks: []*kapselv1.IngestRequest{{EndpointId: e.Id, Payload: number}},
	}))(t).Results
	if got := results[0].GetReceipt(); got.GetState() != kapselv1.ReceiptState_RECEIPT_STATE_DEAD_LETTERED {
		t.Errorf("got %v", results[0])
	}
}
