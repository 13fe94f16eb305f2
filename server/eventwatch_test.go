package server

import (
	"context"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect/v2"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
)

const (
	pending   = kapselv1.EventState_EVENT_STATE_PENDING
	arrived   = kapselv1.EventState_EVENT_STATE_DELIVERED
	unmatched = kapselv1.EventState_EVENT_STATE_UNMATCHED
	calledOff = kapselv1.EventState_EVENT_STATE_CANCELLED
)

// watching is a stream of events that a test reads.
type watching struct {
	t        *testing.T
	messages chan *kapselv1.WatchEventsResponse
	token    string // of the last message that was read
	end      func() error
}

func (r *rig) watch(a account, request *kapselv1.WatchEventsRequest) *watching {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	stream, err := a.events.WatchEvents(ctx, request)
	if err != nil {
		r.t.Fatalf("watch: %v", err)
	}
	w := &watching{t: r.t, messages: make(chan *kapselv1.WatchEventsResponse, 1000)}
	ended := make(chan error, 1)
	go func() {
		for {
			message, err := stream.Receive()
			if err != nil {
				close(w.messages)
				ended <- err
				return
			}
			w.messages <- message
		}
	}()
	w.end = func() error { cancel(); stream.Close(); return <-ended }
	if first := w.next(); first.GetHeartbeat() == nil || first.ResumeToken == "" {
		r.t.Fatalf("the first message is %v, want a heartbeat with a token", first)
	}
	return w
}

func (w *watching) next() *kapselv1.WatchEventsResponse {
	w.t.Helper()
	select {
	case message, open := <-w.messages:
		if !open {
			w.t.Fatal("the stream has ended")
		}
		w.token = message.ResumeToken
		return message
	case <-time.After(15 * time.Second):
		w.t.Fatal("no message in 15 seconds")
		return nil
	}
}

// await reads events until one has that state, and returns all that were read.
func (w *watching) await(eventID string, state kapselv1.EventState) (seen []*kapselv1.Event) {
	w.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); {
		if event := w.next().GetEvent(); event != nil {
			seen = append(seen, event)
			if event.Id == eventID && event.State == state {
				return seen
			}
		}
	}
	w.t.Fatalf("event %s was not told as %s, but %v", eventID, state, seen)
	return nil
}

func TestWatchTellsEventsAndTheirStates(t *testing.T) {
	r := newRig(t)
	a, other := r.tenant(), r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	foreign, _ := r.endpoint(other, &kapselv1.Endpoint{})
	w := r.watch(a, new(kapselv1.WatchEventsRequest))
	defer w.end()

	r.send(other, foreign, "not yours")
	alone := r.send(a, e, "nobody wants this")
	if seen := w.await(alone, unmatched); len(seen) != 1 || len(seen[0].Headers) != 0 || seen[0].PayloadBytes != 17 {
		t.Errorf("got %v", seen)
	}
	delivering, _ := r.endpoint(a, &kapselv1.Endpoint{})
	r.destination(a, &kapselv1.Destination{EndpointId: delivering.Id, Url: r.sink(200)})
	eventID := r.send(a, delivering, "hello")
	for _, event := range w.await(eventID, arrived) {
		if event.Id != eventID || event.State != pending && event.State != arrived {
			t.Errorf("got %v", event)
		}
	}
	// A replay makes it live again.
	r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	if _, err := a.events.ReplayEvent(t.Context(), &kapselv1.ReplayEventRequest{EventId: alone}); err != nil {
		t.Fatal(err)
	}
	w.await(alone, pending)
}

func TestWatchTellsCancellations(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	if _, err := a.destinations.PauseDestination(t.Context(), &kapselv1.PauseDestinationRequest{DestinationId: d.Id}); err != nil {
		t.Fatal(err)
	}
	w := r.watch(a, new(kapselv1.WatchEventsRequest))
	defer w.end()
	// The route snapshot of intake is refreshed by notices that this rig has none of; a delivery that is live is what counts.
	// It comes with its event: alone, that would be one without a destination.
	eventID := id.New()
	destinationID := must(id.Destination.Parse(d.Id))(t)
	endpointID := must(id.Endpoint.Parse(e.Id))(t)
	deliveryID := id.New()
	r.exec(`with event as (insert into events values ($1, $2, $3, now(), '', '', '', '', '', '', 'none', ''))
		insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at) values ($1, $4, $2, $3, $5, now() + interval '1 day')`,
		a.id, eventID, endpointID, deliveryID, destinationID)
	w.await(id.Event.Text(eventID), pending)
	if _, err := a.deliveries.CancelDelivery(t.Context(), &kapselv1.CancelDeliveryRequest{DeliveryId: id.Delivery.Text(deliveryID)}); err != nil {
		t.Fatal(err)
	}
	w.await(id.Event.Text(eventID), calledOff)
}

// What happens while nobody reads is told to whoever resumes, once, and also what was committed out of the order of ids.
func TestWatchResumesWithoutGapOrRepeat(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	late := id.New() // made first, committed last
	w := r.watch(a, new(kapselv1.WatchEventsRequest))
	var want, got []string
	for range 3 {
		want = append(want, r.send(a, e, "before"))
	}
	for _, event := range w.await(want[2], unmatched) {
		got = append(got, event.Id)
	}
	token := w.token
	w.end()

	for range 700 { // more than a step
		want = append(want, r.send(a, e, "between"))
	}
	r.exec(`insert into events values ($1, $2, $3, now(), '', '', '', '', '', '', 'none', '')`, a.id, late, must(id.Endpoint.Parse(e.Id))(t))
	want = append(want, id.Event.Text(late))
	w = r.watch(a, &kapselv1.WatchEventsRequest{ResumeToken: token})
	defer w.end()
	last := r.send(a, e, "after")
	want = append(want, last)
	for _, event := range w.await(last, unmatched) {
		got = append(got, event.Id)
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		t.Errorf("%d events were told, want %d, each once", len(got), len(want))
	}
}

func TestWatchFilters(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	e2, _ := r.endpoint(a, &kapselv1.Endpoint{})
	w := r.watch(a, &kapselv1.WatchEventsRequest{Filter: &kapselv1.EventFilter{
		EndpointIds: []string{e2.Id}, States: []kapselv1.EventState{unmatched}, IdText: "evt_",
	}})
	defer w.end()
	r.send(a, e, "no")
	wanted := r.send(a, e2, "yes")
	if seen := w.await(wanted, unmatched); len(seen) != 1 {
		t.Errorf("got %v", seen)
	}
}

func TestWatchRefusesForeignTokens(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	w := r.watch(a, new(kapselv1.WatchEventsRequest))
	token := w.token
	w.end()
	for name, request := range map[string]*kapselv1.WatchEventsRequest{
		"no token":           {ResumeToken: "hello"},
		"cut off":            {ResumeToken: token[:len(token)-4]},
		"of another filter":  {ResumeToken: token, Filter: &kapselv1.EventFilter{IdText: "evt_"}},
		"not base64":         {ResumeToken: "%%%"},
		"a thousand letters": {ResumeToken: string(slices.Repeat([]byte("A"), 1000))},
	} {
		stream, err := a.events.WatchEvents(t.Context(), request)
		if err == nil {
			_, err = stream.Receive()
			stream.Close()
		}
		t.Log(name)
		wantReason(t, err, connect.CodeInvalidArgument, "INVALID_TOKEN")
	}
}
