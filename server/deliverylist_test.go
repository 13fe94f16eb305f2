package server

import (
	"slices"
	"testing"

	"connectrpc.com/connect/v2"
	"github.com/google/uuid"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
)

const (
	pendingState      = kapselv1.DeliveryState_DELIVERY_STATE_PENDING
	heldState         = kapselv1.DeliveryState_DELIVERY_STATE_HELD
	succeededState    = kapselv1.DeliveryState_DELIVERY_STATE_SUCCEEDED
	deadLetteredState = kapselv1.DeliveryState_DELIVERY_STATE_DEAD_LETTERED
	cancelledState    = kapselv1.DeliveryState_DELIVERY_STATE_CANCELLED
)

// pages follows a list to its end and returns the ids, and the number of pages.
func (r *rig) pages(a account, request *kapselv1.ListDeliveriesRequest) (ids []string, pages int) {
	r.t.Helper()
	request.PageToken = ""
	for {
		response := must(a.deliveries.ListDeliveries(r.t.Context(), request))(r.t)
		for _, delivery := range response.Deliveries {
			ids = append(ids, delivery.Id)
		}
		pages++
		if response.NextPageToken == "" {
			return ids, pages
		}
		request.PageToken = response.NextPageToken
	}
}

func TestDeliveriesOfATenantAreListedByFilter(t *testing.T) {
	r := newRig(t)
	a, other := r.tenant(), r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	fine := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	bad := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(500), RetryPolicy: &kapselv1.RetryPolicy{MaxAttempts: 1}})
	paused := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	slow := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(500)})
	must(a.destinations.PauseDestination(t.Context(), &kapselv1.PauseDestinationRequest{DestinationId: paused.Id}))(t)
	unmatched, _ := r.endpoint(a, &kapselv1.Endpoint{})

	var events []string // the newest first
	for range 3 {
		r.send(a, unmatched, "nobody wants it")
		events = slices.Insert(events, 0, r.send(a, e, "hello"))
	}
	ofState := func(state kapselv1.DeliveryState, destinationID string) (ids []string) {
		for _, eventID := range events {
			for _, delivery := range must(a.deliveries.ListDeliveries(t.Context(), &kapselv1.ListDeliveriesRequest{EventId: eventID}))(t).Deliveries {
				if delivery.State == state && (destinationID == "" || delivery.DestinationId == destinationID) && delivery.ReplayOf == "" {
					ids = append(ids, delivery.Id)
				}
			}
		}
		return ids
	}
	r.eventually(func() bool {
		return len(ofState(succeededState, "")) == 3 && len(ofState(deadLetteredState, "")) == 3 && len(ofState(pendingState, slow.Id)) == 3
	}, func() string { return "the first attempts are not all recorded" })

	// The newest of the lot: a repeat, and another one that is cancelled.
	dead := ofState(deadLetteredState, "")
	repeat := must(a.deliveries.RetryDelivery(t.Context(), &kapselv1.RetryDeliveryRequest{DeliveryId: dead[2]}))(t).Delivery.Id
	ended := must(a.deliveries.RetryDelivery(t.Context(), &kapselv1.RetryDeliveryRequest{DeliveryId: dead[1]}))(t).Delivery.Id
	must(a.deliveries.CancelDelivery(t.Context(), &kapselv1.CancelDeliveryRequest{DeliveryId: ended}))(t)
	first := ofState(pendingState, slow.Id)[1]
	must(a.deliveries.CancelDelivery(t.Context(), &kapselv1.CancelDeliveryRequest{DeliveryId: first}))(t)

	all := []string{ended, repeat}
	for _, eventID := range events {
		for _, delivery := range must(a.deliveries.ListDeliveries(t.Context(), &kapselv1.ListDeliveriesRequest{EventId: eventID}))(t).Deliveries {
			if delivery.Id != ended && delivery.Id != repeat {
				all = append(all, delivery.Id)
			}
		}
	}
	if len(all) != 14 {
		t.Fatalf("%d deliveries made, want 14", len(all))
	}
	for _, size := range []int32{1, 2, 3, 5, 14, 1000} {
		got, _ := r.pages(a, &kapselv1.ListDeliveriesRequest{PageSize: size})
		if !slices.Equal(got, all) {
			t.Errorf("pages of %d: %d deliveries %v, want %v", size, len(got), got, all)
		}
	}
	for name, c := range map[string]struct {
		request *kapselv1.ListDeliveriesRequest
		want    []string
	}{
		"succeeded":           {&kapselv1.ListDeliveriesRequest{States: []kapselv1.DeliveryState{succeededState}}, ofState(succeededState, "")},
		"to the fine":         {&kapselv1.ListDeliveriesRequest{DestinationId: fine.Id}, ofState(succeededState, "")},
		"dead":                {&kapselv1.ListDeliveriesRequest{States: []kapselv1.DeliveryState{deadLetteredState}}, dead},
		"held":                {&kapselv1.ListDeliveriesRequest{States: []kapselv1.DeliveryState{heldState}}, ofState(heldState, paused.Id)},
		"pending":             {&kapselv1.ListDeliveriesRequest{States: []kapselv1.DeliveryState{pendingState}}, append([]string{repeat}, ofState(pendingState, slow.Id)...)},
		"cancelled":           {&kapselv1.ListDeliveriesRequest{States: []kapselv1.DeliveryState{cancelledState}}, []string{ended, first}},
		"to the bad":          {&kapselv1.ListDeliveriesRequest{DestinationId: bad.Id}, append([]string{ended, repeat}, dead...)},
		"to the bad and dead": {&kapselv1.ListDeliveriesRequest{DestinationId: bad.Id, States: []kapselv1.DeliveryState{deadLetteredState}}, dead},
		"to nobody":           {&kapselv1.ListDeliveriesRequest{DestinationId: id.Destination.Text(id.New())}, nil},
	} {
		for _, size := range []int32{1, 0} {
			c.request.PageSize = size
			if got, _ := r.pages(a, c.request); !slices.Equal(got, c.want) {
				t.Errorf("%s, pages of %d: got %v, want %v", name, size, got, c.want)
			}
		}
	}
	if got, _ := r.pages(other, &kapselv1.ListDeliveriesRequest{}); len(got) != 0 {
		t.Errorf("another tenant sees %v", got)
	}
	request := &kapselv1.ListDeliveriesRequest{PageSize: 1}
	request.PageToken = must(a.deliveries.ListDeliveries(t.Context(), request))(t).NextPageToken
	if got := must(other.deliveries.ListDeliveries(t.Context(), request))(t).Deliveries; len(got) != 0 {
		t.Errorf("another tenant sees %v by the token of a page", got)
	}
	request.DestinationId = fine.Id
	_, err := a.deliveries.ListDeliveries(t.Context(), request)
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_TOKEN")
}

// However little a filter meets, a page looks at a bounded number of events, and says where to go on.
func TestPageOfDeliveriesIsShortBeforeItReadsAll(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	eventID := r.send(a, e, "hello")
	r.event(a, eventID, kapselv1.EventState_EVENT_STATE_DELIVERED)
	endpointID, _ := id.Endpoint.Parse(e.Id)
	newer := make([]uuid.UUID, 2*maxAnchors)
	for i := range newer {
		newer[i] = id.New()
	}
	r.exec(`insert into events (tenant_id, event_id, endpoint_id, received_at, body, headers, content_type, event_type, dedup_key, source_address, verification, defect)
		select $1, e, $2, now(), '', '', '', '', '', '', 'none', '' from unnest($3::uuid[]) e`, a.id, endpointID, newer)
	short := must(a.deliveries.ListDeliveries(t.Context(), &kapselv1.ListDeliveriesRequest{}))(t)
	if len(short.Deliveries) != 0 || short.NextPageToken == "" {
		t.Errorf("the first page has %d deliveries and token %q, want none and a token", len(short.Deliveries), short.NextPageToken)
	}
	got, pages := r.pages(a, &kapselv1.ListDeliveriesRequest{})
	if len(got) != 1 || pages != 3 {
		t.Errorf("got %v in %d pages, want the one delivery in 3", got, pages)
	}
}
