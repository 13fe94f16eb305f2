package kapsel

import (
	"context"
	"fmt"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

// WaitForEvent waits until an event has ended, and returns it as GetEvent does: each of its deliveries was delivered, given up or
// cancelled, or it matched no destination. Its state says which. It follows the event's state, and bridges interruptions. Retries may
// take days, so give ctx a deadline: when ctx ends first, the error is ctx's.
func (c *Client) WaitForEvent(ctx context.Context, eventID string) (*kapselv1.Event, error) {
	open := func(ctx context.Context) (Receiver[*kapselv1.Event], error) {
		stream, err := c.Events.WatchEvents(ctx, &kapselv1.WatchEventsRequest{Filter: &kapselv1.EventFilter{IdText: eventID}})
		if err != nil {
			return nil, err
		}
		look := func() (*kapselv1.Event, error) {
			response, err := c.Events.GetEvent(ctx, &kapselv1.GetEventRequest{EventId: eventID})
			return response.GetEvent(), err
		}
		return &eventReceiver{Receiver: stream, look: look}, nil
	}
	for event, err := range Resume(ctx, Stream{}, false, open, func(*kapselv1.Event) {}) {
		if err != nil {
			return nil, fmt.Errorf("wait for event %s: %w", eventID, err)
		}
		if event != nil && event.State != kapselv1.EventState_EVENT_STATE_PENDING {
			return event, nil
		}
	}
	return nil, fmt.Errorf("wait for event %s: %w", eventID, ctx.Err())
}

// eventReceiver looks at an event when the stream is up, since what happened before that is not told, and whenever the stream tells of
// it. A heartbeat is nil.
type eventReceiver struct {
	Receiver[*kapselv1.WatchEventsResponse]
	look func() (*kapselv1.Event, error)
	up   bool
}

func (r *eventReceiver) Receive() (*kapselv1.Event, error) {
	message, err := r.Receiver.Receive()
	if err != nil || r.up && message.GetEvent() == nil {
		return nil, err
	}
	r.up = true
	return r.look()
}

// IngestAndWait sends a webhook and waits until its event has ended, as WaitForEvent does.
func (c *Client) IngestAndWait(ctx context.Context, webhook *kapselv1.IngestRequest) (*kapselv1.Event, error) {
	response, err := c.Ingest.Ingest(ctx, webhook)
	if err != nil {
		return nil, fmt.Errorf("ingest: %w", err)
	}
	return c.WaitForEvent(ctx, response.GetReceipt().GetEventId())
}
