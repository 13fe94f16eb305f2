package ingest

import (
	"crypto/sha256"

	"github.com/kapsel-dev/kapsel/internal/filter"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/route"
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
		p.deliveries = append(p.deliveries, pendingDelivery{id: id.New(), destination: destination, orderKey: orderKey(destination, w)})
	}
}

// orderKey is the hash of the key that a destination orders the event by. Nil: the destination keeps no order, or the
// event has no key.
func orderKey(destination *route.Destination, w Webhook) []byte {
	key := ""
	switch ordering := destination.Ordering; {
	case ordering.Header != "":
		key = first(w.Header, ordering.Header)
	case ordering.JSONPath != nil:
		key, _ = ordering.JSONPath.Text(w.Body)
	}
	if key == "" {
		return nil
	}
	digest := sha256.Sum256([]byte(key))
	return digest[:keyHashBytes]
}
