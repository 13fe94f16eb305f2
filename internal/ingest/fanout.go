package ingest

import (
	"github.com/kapsel-dev/kapsel/internal/filter"
	"github.com/kapsel-dev/kapsel/internal/id"
)

// fanOut makes a delivery for each destination whose filter takes the event. Only expressions look at headers and payload,
// so a webhook without one costs nothing here.
func (p *pending) fanOut(w Webhook) {
	var shown *filter.Event // to expressions, which share what they decode
	for _, destination := range w.Endpoint.Destinations {
		if !destination.Filter.MatchesType(p.event.Type) {
			continue
		}
		if destination.Filter.HasExpression() {
			if shown == nil {
				shown = filter.NewEvent(p.event.Type, w.Header, w.Body)
			}
			if !destination.Filter.Meets(shown) {
				continue
			}
		}
		p.deliveries = append(p.deliveries, pendingDelivery{id: id.New(), destination: destination})
	}
}
