package server

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

func TestEachDestinationGetsJustTheEventsOfItsFilter(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	byHeader := &kapselv1.EventTypeSource{Kind: kapselv1.EventTypeSourceKind_EVENT_TYPE_SOURCE_KIND_HEADER, Header: "X-Type"}
	byPath := &kapselv1.EventTypeSource{Kind: kapselv1.EventTypeSourceKind_EVENT_TYPE_SOURCE_KIND_JSON_PATH, JsonPath: "meta.kind"}
	filters := map[string]*kapselv1.Filter{
		"all":          nil,
		"orders":       {EventTypes: []string{"order.*"}},
		"paid":         {EventTypes: []string{"order.paid", "invoice.paid"}},
		"large":        {Expression: `payload.total > 100`},
		"large orders": {EventTypes: []string{"order.*"}, Expression: `payload.total > 100`},
		"by header":    {Expression: `"x-shop" in headers && headers["x-shop"] == "north"`},
		"by type":      {Expression: `event_type.endsWith(".paid")`},
		"not JSON":     {Expression: `payload == null`},
		"none":         {Expression: `false`},
	}
	for _, source := range []*kapselv1.EventTypeSource{byHeader, byPath} {
		e, _ := r.endpoint(a, &kapselv1.Endpoint{EventTypeSource: source})
		names := make(map[string]string)
		for name, filter := range filters {
			names[r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200), Filter: filter}).Id] = name
		}
		for _, test := range []struct {
			eventType, shop, payload string
			want                     []string
		}{
			{"order.paid", "north", `{"meta": {"kind": "order.paid"}, "total": 500}`, []string{"all", "by header", "by type", "large", "large orders", "orders", "paid"}},
			{"order.made", "south", `{"meta": {"kind": "order.made"}, "total": 100}`, []string{"all", "orders"}},
			{"invoice.paid", "", `{"meta": {"kind": "invoice.paid"}, "total": 100.5}`, []string{"all", "by type", "large", "paid"}},
			// An expression that fails on the event lets it pass: there is no total, and a text has no order with a number.
			{"", "", `{}`, []string{"all", "large"}},
			{"order.x", "", `{"meta": {"kind": "order.x"}, "total": "many"}`, []string{"all", "large", "large orders", "orders"}},
			{"", "north", `not JSON`, []string{"all", "by header", "large", "not JSON"}},
		} {
			headers := []*kapselv1.Header{{Name: "Content-Type", Value: "application/json"}}
			if test.eventType != "" && source == byHeader {
				headers = append(headers, &kapselv1.Header{Name: "x-type", Value: test.eventType})
			}
			if test.shop != "" {
				headers = append(headers, &kapselv1.Header{Name: "X-SHOP", Value: test.shop}, &kapselv1.Header{Name: "x-shop", Value: "second"})
			}
			receipt := must(a.ingest.Ingest(t.Context(), &kapselv1.IngestRequest{EndpointId: e.Id, Headers: headers, Payload: []byte(test.payload)}))(t).Receipt
			event := r.event(a, receipt.EventId, kapselv1.EventState_EVENT_STATE_DELIVERED)
			deliveries := must(a.deliveries.ListDeliveries(t.Context(), &kapselv1.ListDeliveriesRequest{EventId: event.Id}))(t).Deliveries
			var got []string
			for _, d := range deliveries {
				got = append(got, names[d.DestinationId])
			}
			slices.Sort(got)
			if diff := cmp.Diff(test.want, got); diff != "" || event.EventType != test.eventType {
				t.Errorf("%s of type %q: %s", test.payload, event.EventType, diff)
			}
		}
	}
}

func TestChangedFilterIsInForceForTheNextWebhook(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	for i := range 6 {
		taken := i%2 == 0
		must(a.destinations.UpdateDestination(t.Context(), &kapselv1.UpdateDestinationRequest{
			DestinationId: d.Id, UpdateMask: mask("filter"),
			Destination: &kapselv1.Destination{Filter: &kapselv1.Filter{Expression: fmt.Sprintf("payload.n == %d || %v", i+1, taken)}},
		}))(t)
		receipt := must(a.ingest.Ingest(t.Context(), &kapselv1.IngestRequest{EndpointId: e.Id, Payload: fmt.Appendf(nil, `{"n": %d}`, i)}))(t).Receipt
		deliveries := must(a.deliveries.ListDeliveries(t.Context(), &kapselv1.ListDeliveriesRequest{EventId: receipt.EventId}))(t).Deliveries
		if (len(deliveries) == 1) != taken {
			t.Errorf("webhook %d: %d deliveries, taken: %v", i, len(deliveries), taken)
		}
	}
}

func TestEventThatNoDestinationTakesIsStored(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200), Filter: &kapselv1.Filter{Expression: `payload.a == 1`}})
	receipt := must(a.ingest.Ingest(t.Context(), &kapselv1.IngestRequest{EndpointId: e.Id, Payload: []byte(`{"a": 2}`)}))(t).Receipt
	got := must(a.events.GetPayload(t.Context(), &kapselv1.GetPayloadRequest{EventId: receipt.EventId}))(t)
	if string(got.Payload) != `{"a": 2}` {
		t.Errorf("payload %q", got.Payload)
	}
}
