package route

import (
	"strings"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/filter"
	"github.com/kapsel-dev/kapsel/internal/id"
)

func TestFiltersAreCompiledOnceAndKept(t *testing.T) {
	r := newRig(t)
	endpointID := r.endpoint(`{}`, `{}`, `{}`)
	destinationID := r.destination(endpointID, `{"eventTypes":["push"],"expression":"payload.a == 1"}`, `{}`)
	meets := func(body string) bool {
		return r.Snapshot().Destination(destinationID).Filter.Meets(filter.NewEvent("push", nil, []byte(body)))
	}
	first := r.refresh().Destination(destinationID).Filter
	if !first.HasExpression() || !meets(`{"a":1}`) || meets(`{"a":2}`) {
		t.Fatal("the expression is not in force")
	}
	r.exec(`update destinations set filter = '{"eventTypes":["pull"],"expression":"payload.a == 1"}'`)
	if second := r.refresh().Destination(destinationID).Filter; !second.MatchesType("pull") || second.MatchesType("push") || !meets(`{"a":1}`) {
		t.Error("new event types are not in force")
	}
	r.exec(`update destinations set filter = '{"expression":"payload.a == 2"}'`)
	if r.refresh(); meets(`{"a":1}`) || !meets(`{"a":2}`) {
		t.Error("a new expression is not in force")
	}
	r.exec(`update destinations set filter = '{}'`)
	if r.refresh().Destination(destinationID).Filter.HasExpression() || !meets(`{"a":1}`) {
		t.Error("an expression that was taken away is in force")
	}
}

func TestDestinationWhoseExpressionNoLongerCompilesIsHeld(t *testing.T) {
	r := newRig(t)
	endpointID := r.endpoint(`{}`, `{}`, `{}`)
	destinationID := r.destination(endpointID, `{"eventTypes":["push"],"expression":"nonsense("}`, `{}`)
	destination := r.refresh().Destination(destinationID)
	if destination == nil || destination.Active || !destination.Filter.MatchesType("push") || destination.Filter.MatchesType("pull") ||
		destination.Filter.HasExpression() {
		t.Errorf("the route is %+v", destination)
	}
	if !strings.Contains(r.logged.String(), "does not compile") {
		t.Errorf("logged %q", r.logged.String())
	}
}

func TestRateAndOrderingAreInTheSnapshot(t *testing.T) {
	r := newRig(t)
	endpointID := r.endpoint(`{}`, `{}`, `{}`)
	plain := r.destination(endpointID, `{}`, `{}`)
	byHeader, byPath := r.destination(endpointID, `{}`, `{}`), r.destination(endpointID, `{}`, `{}`)
	r.exec(`update destinations set rate_per_second = 5, ordering = '{"header":"x-key"}' where destination_id = $1`, byHeader)
	r.exec(`update destinations set ordering = '{"jsonPath":"data.id*"}' where destination_id = $1`, byPath)
	snapshot := r.refresh()
	if d := snapshot.Destination(plain); d.RatePerSecond != 0 || d.Ordering.Header != "" || d.Ordering.JSONPath != nil {
		t.Errorf("plain: %+v", d)
	}
	if d := snapshot.Destination(byHeader); d.RatePerSecond != 5 || d.Ordering.Header != "X-Key" || d.Ordering.JSONPath != nil {
		t.Errorf("by header: %+v", d)
	}
	d := snapshot.Destination(byPath)
	if key, _ := d.Ordering.JSONPath.Text([]byte(`{"data":{"id*":"k"}}`)); key != "k" || d.Ordering.Header != "" {
		t.Errorf("by path: %+v, key %q", d.Ordering, key)
	}
}

func TestRemovedDestinationsAreKnown(t *testing.T) {
	r := newRig(t)
	gone := id.New()
	r.exec(`insert into removed_destinations (tenant_id, destination_id) values ($1, $2)`, r.tenant, gone)
	if snapshot := r.refresh(); !snapshot.Removed(gone) || snapshot.Removed(id.New()) {
		t.Error("the snapshot does not know just the removed destination")
	}
}
