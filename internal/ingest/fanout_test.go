package ingest

import (
	"net/http"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/filter"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
)

func TestFanOutWithoutExpressionCostsNothing(t *testing.T) {
	endpoint := &route.Endpoint{Destinations: []*route.Destination{
		{Filter: filter.Types([]string{"other"})}, {Filter: filter.Types([]string{"order.*x"})},
	}}
	w := Webhook{Endpoint: endpoint, Header: http.Header{"X-A": {"b"}}, Body: []byte(`{"a":1}`)}
	p := &pending{event: &ledger.Event{Type: "order.paid"}}
	if allocations := testing.AllocsPerRun(100, func() { p.fanOut(w) }); allocations != 0 {
		t.Errorf("%v allocations for filters that take nothing, want none", allocations)
	}
	if len(p.deliveries) != 0 {
		t.Errorf("%d deliveries", len(p.deliveries))
	}
}

func TestFanOutKeepsTheOrderOfDestinations(t *testing.T) {
	endpoint := new(route.Endpoint)
	want := make([]*route.Destination, 0, 3)
	for _, expression := range []string{"", "payload.a == 1", "payload.a == 2", `"x-a" in headers`} {
		f, err := filter.New(nil, expression)
		if err != nil {
			t.Fatal(err)
		}
		d := &route.Destination{Filter: f}
		endpoint.Destinations = append(endpoint.Destinations, d)
		if expression != "payload.a == 2" {
			want = append(want, d)
		}
	}
	p := &pending{event: &ledger.Event{Type: "order.paid"}}
	p.fanOut(Webhook{Endpoint: endpoint, Header: http.Header{"X-A": {"b"}}, Body: []byte(`{"a":1}`)})
	if len(p.deliveries) != len(want) {
		t.Fatalf("%d deliveries, want %d", len(p.deliveries), len(want))
	}
	for i, d := range p.deliveries {
		if d.destination != want[i] {
			t.Errorf("delivery %d is for another destination", i)
		}
	}
}
