package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect/v2"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
)

// deadDelivery makes an event whose only delivery was given up.
func (r *rig) deadDelivery(a account, e *kapselv1.Endpoint) (eventID string, dead *kapselv1.DeadLetter) {
	r.t.Helper()
	eventID = r.send(a, e, "hello")
	r.event(a, eventID, kapselv1.EventState_EVENT_STATE_DEAD_LETTERED)
	list := must(a.deliveries.ListDeadLetters(r.t.Context(), &kapselv1.ListDeadLettersRequest{PageSize: 1}))(r.t)
	if len(list.DeadLetters) != 1 || list.DeadLetters[0].EventId != eventID {
		r.t.Fatalf("the newest dead letter is %v, want that of %s", list.DeadLetters, eventID)
	}
	return eventID, list.DeadLetters[0]
}

func TestDeadLettersAreListedByFilter(t *testing.T) {
	r := newRig(t)
	a, other := r.tenant(), r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(500), RetryPolicy: &kapselv1.RetryPolicy{MaxAttempts: 1}})
	_, first := r.deadDelivery(a, e)
	_, second := r.deadDelivery(a, e)
	if second.DestinationId != d.Id || second.Reason != leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXHAUSTED || second.Diagnosis == "" ||
		second.LastAttempt.GetStatusCode() != 500 || string(second.LastAttempt.GetResponseExcerpt()) != "thank you" || second.Attempts != 1 {
		t.Errorf("got %v", second)
	}
	for name, c := range map[string]struct {
		filter *kapselv1.DeadLetterFilter
		want   int
	}{
		"all":               {nil, 2},
		"destination":       {&kapselv1.DeadLetterFilter{DestinationIds: []string{d.Id}}, 2},
		"other destination": {&kapselv1.DeadLetterFilter{DestinationIds: []string{id.Destination.Text(id.New())}}, 0},
		"endpoint":          {&kapselv1.DeadLetterFilter{EndpointIds: []string{e.Id}}, 2},
		"reason":            {&kapselv1.DeadLetterFilter{Reasons: []leafv1.DeadLetterReason{leafv1.DeadLetterReason_DEAD_LETTER_REASON_EXPIRED}}, 0},
		"failure":           {&kapselv1.DeadLetterFilter{Failures: []leafv1.Failure{leafv1.Failure_FAILURE_STATUS}}, 2},
		"other failure":     {&kapselv1.DeadLetterFilter{Failures: []leafv1.Failure{leafv1.Failure_FAILURE_DNS}}, 0},
		"event type":        {&kapselv1.DeadLetterFilter{EventTypes: []string{"no.such.type"}}, 0},
		"any event type":    {&kapselv1.DeadLetterFilter{EventTypes: []string{"*"}}, 2},
		"later":             {&kapselv1.DeadLetterFilter{Dead: &kapselv1.TimeRange{EndTime: first.DeadTime}}, 0},
	} {
		got := must(a.deliveries.ListDeadLetters(t.Context(), &kapselv1.ListDeadLettersRequest{Filter: c.filter}))(t).DeadLetters
		if len(got) != c.want {
			t.Errorf("%s: %d dead letters, want %d", name, len(got), c.want)
		}
	}
	request := &kapselv1.ListDeadLettersRequest{PageSize: 1}
	request.PageToken = must(a.deliveries.ListDeadLetters(t.Context(), request))(t).NextPageToken
	page := must(a.deliveries.ListDeadLetters(t.Context(), request))(t)
	if len(page.DeadLetters) != 1 || page.DeadLetters[0].DeliveryId != first.DeliveryId || page.NextPageToken != "" {
		t.Errorf("second page: %v", page)
	}
	request.Filter = &kapselv1.DeadLetterFilter{EndpointIds: []string{e.Id}}
	_, err := a.deliveries.ListDeadLetters(t.Context(), request)
	wantReason(t, err, connect.CodeInvalidArgument, "INVALID_TOKEN")
	if got := must(other.deliveries.ListDeadLetters(t.Context(), &kapselv1.ListDeadLettersRequest{}))(t).DeadLetters; len(got) != 0 {
		t.Errorf("another tenant sees %v", got)
	}
}

func TestRetryAndCancel(t *testing.T) {
	r := newRig(t)
	a, other := r.tenant(), r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(500), RetryPolicy: &kapselv1.RetryPolicy{MaxAttempts: 1}})
	eventID, dead := r.deadDelivery(a, e)

	_, err := other.deliveries.RetryDelivery(t.Context(), &kapselv1.RetryDeliveryRequest{DeliveryId: dead.DeliveryId})
	wantReason(t, err, connect.CodeNotFound, "DELIVERY_NOT_FOUND")
	_, err = a.deliveries.CancelDelivery(t.Context(), &kapselv1.CancelDeliveryRequest{DeliveryId: dead.DeliveryId})
	wantReason(t, err, connect.CodeFailedPrecondition, "DELIVERY_CLOSED")

	// Two wishes, two deliveries; each names the one it repeats, and goes on to when it is closed.
	one := must(a.deliveries.RetryDelivery(t.Context(), &kapselv1.RetryDeliveryRequest{DeliveryId: dead.DeliveryId}))(t).Delivery
	two := must(a.deliveries.RetryDelivery(t.Context(), &kapselv1.RetryDeliveryRequest{DeliveryId: dead.DeliveryId}))(t).Delivery
	if one.Id == two.Id || one.ReplayOf != dead.DeliveryId || one.State != kapselv1.DeliveryState_DELIVERY_STATE_PENDING || one.NextAttemptTime == nil {
		t.Errorf("got %v and %v", one, two)
	}
	r.event(a, eventID, kapselv1.EventState_EVENT_STATE_PENDING)
	live := must(a.deliveries.RetryDelivery(t.Context(), &kapselv1.RetryDeliveryRequest{DeliveryId: two.Id}))(t).Delivery
	if live.Id != two.Id {
		t.Errorf("a live delivery was retried as %v", live)
	}
	for _, delivery := range []*kapselv1.Delivery{one, two} {
		_, err = other.deliveries.CancelDelivery(t.Context(), &kapselv1.CancelDeliveryRequest{DeliveryId: delivery.Id})
		wantReason(t, err, connect.CodeNotFound, "DELIVERY_NOT_FOUND")
		got := must(a.deliveries.CancelDelivery(t.Context(), &kapselv1.CancelDeliveryRequest{DeliveryId: delivery.Id, Reason: "enough"}))(t).Delivery
		if got.State != kapselv1.DeliveryState_DELIVERY_STATE_CANCELLED || got.StateDetail != "enough" || got.ReplayOf != dead.DeliveryId || got.CloseTime == nil {
			t.Errorf("got %v", got)
		}
	}
	r.event(a, eventID, kapselv1.EventState_EVENT_STATE_DEAD_LETTERED)

	must(a.destinations.PauseDestination(t.Context(), &kapselv1.PauseDestinationRequest{DestinationId: d.Id}))(t)
	_, err = a.deliveries.RetryDelivery(t.Context(), &kapselv1.RetryDeliveryRequest{DeliveryId: dead.DeliveryId})
	wantReason(t, err, connect.CodeFailedPrecondition, "DESTINATION_NOT_ENABLED")
	held := must(a.events.ReplayEvent(t.Context(), &kapselv1.ReplayEventRequest{EventId: eventID, DestinationIds: []string{d.Id}}))(t).Deliveries
	if len(held) != 1 || held[0].State != kapselv1.DeliveryState_DELIVERY_STATE_HELD || held[0].ReplayOf != two.Id {
		t.Errorf("replay to a paused destination: %v, want one that is held and repeats %s", held, two.Id)
	}
	all := must(a.events.ReplayEvent(t.Context(), &kapselv1.ReplayEventRequest{EventId: eventID}))(t).Deliveries
	if len(all) != 1 || all[0].ReplayOf != held[0].Id {
		t.Errorf("replay to all: %v", all)
	}
	_, err = other.events.ReplayEvent(t.Context(), &kapselv1.ReplayEventRequest{EventId: eventID})
	wantReason(t, err, connect.CodeNotFound, "EVENT_NOT_FOUND")
	_, err = a.events.ReplayEvent(t.Context(), &kapselv1.ReplayEventRequest{EventId: eventID, DestinationIds: []string{id.Destination.Text(id.New())}})
	wantReason(t, err, connect.CodeNotFound, "DESTINATION_NOT_FOUND")
}

func TestReplayOfDeadLetters(t *testing.T) {
	r := newRig(t)
	a, other := r.tenant(), r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(500), RetryPolicy: &kapselv1.RetryPolicy{MaxAttempts: 1}})
	_, dead := r.deadDelivery(a, e)
	everything := new(kapselv1.DeadLetterFilter)

	dry := must(a.deliveries.ReplayDeadLetters(t.Context(), &kapselv1.ReplayDeadLettersRequest{Filter: everything, DryRun: true}))(t).Replay
	if dry.Id != "" || dry.Matched != 1 || dry.RatePerSecond != 100 {
		t.Errorf("dry run: %v", dry)
	}
	stopped := must(a.deliveries.ReplayDeadLetters(t.Context(), &kapselv1.ReplayDeadLettersRequest{Filter: everything}))(t).Replay
	_, err := other.deliveries.CancelReplay(t.Context(), &kapselv1.CancelReplayRequest{ReplayId: stopped.Id})
	wantReason(t, err, connect.CodeNotFound, "REPLAY_NOT_FOUND")
	must(a.deliveries.CancelReplay(t.Context(), &kapselv1.CancelReplayRequest{ReplayId: stopped.Id}))(t)
	_, err = a.deliveries.CancelReplay(t.Context(), &kapselv1.CancelReplayRequest{ReplayId: stopped.Id})
	wantReason(t, err, connect.CodeFailedPrecondition, "REPLAY_ENDED")

	replay := must(a.deliveries.ReplayDeadLetters(t.Context(), &kapselv1.ReplayDeadLettersRequest{Filter: everything}))(t).Replay
	go ledger.NewReplayer(r.db, r.deps.Logger).Run(t.Context())
	r.eventually(func() bool {
		replay = must(a.deliveries.GetReplay(t.Context(), &kapselv1.GetReplayRequest{ReplayId: replay.Id}))(t).Replay
		return replay.State == kapselv1.ReplayState_REPLAY_STATE_COMPLETED
	}, func() string { return "replay is " + replay.String() })
	if replay.Replayed != 1 || replay.EndTime == nil {
		t.Errorf("got %v", replay)
	}
	list := must(a.deliveries.ListReplays(t.Context(), &kapselv1.ListReplaysRequest{}))(t).Replays
	if len(list) != 2 || list[0].Id != replay.Id || list[1].State != kapselv1.ReplayState_REPLAY_STATE_CANCELLED || list[1].Replayed != 0 {
		t.Errorf("got %v", list)
	}
	again := must(a.deliveries.ListDeadLetters(t.Context(), &kapselv1.ListDeadLettersRequest{}))(t).DeadLetters
	if len(again) != 1 || again[0].DeliveryId != dead.DeliveryId || again[0].ReplayedBy == "" {
		t.Errorf("got %v", again)
	}
}

// A delivery is cancelled while its destination thinks; the answer is recorded all the same, and changes nothing.
func TestCancelledInFlightDeliveryKeepsItsAttempt(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	arrived, answer := make(chan struct{}), make(chan struct{})
	sink := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		close(arrived)
		<-answer
	}))
	t.Cleanup(sink.Close)
	r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: sink.URL})
	eventID := r.send(a, e, "hello")
	<-arrived
	flying := must(a.deliveries.ListDeliveries(t.Context(), &kapselv1.ListDeliveriesRequest{
		States: []kapselv1.DeliveryState{kapselv1.DeliveryState_DELIVERY_STATE_IN_FLIGHT},
	}))(t).Deliveries
	if len(flying) != 1 || flying[0].EventId != eventID {
		t.Fatalf("in flight are %v, want the delivery of %s", flying, eventID)
	}
	cancelled := must(a.deliveries.CancelDelivery(t.Context(), &kapselv1.CancelDeliveryRequest{DeliveryId: flying[0].Id, Reason: "enough"}))(t).Delivery
	if cancelled.State != kapselv1.DeliveryState_DELIVERY_STATE_CANCELLED || cancelled.Attempts != 0 {
		t.Errorf("got %v", cancelled)
	}
	close(answer)
	var after *kapselv1.Delivery
	r.eventually(func() bool {
		after = must(a.deliveries.GetDelivery(t.Context(), &kapselv1.GetDeliveryRequest{DeliveryId: cancelled.Id}))(t).Delivery
		return after.Attempts > 0
	}, func() string { return "the attempt is not recorded" })
	if after.State != kapselv1.DeliveryState_DELIVERY_STATE_CANCELLED || after.LastAttempt.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED || after.LastAttempt.Late {
		t.Errorf("got %v", after)
	}

	// The lease ends; whoever looks finds the attempt, and records no other.
	r.exec("update cancelled_leases set lease_ends_at = now()")
	leases := ledger.NewCancelledLeases(r.db, id.New(), testLogID, r.deps.Logger, func(n int) { t.Errorf("%d leaves made, want none", n) })
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		leases.Run(ctx)
	}()
	r.eventually(func() bool {
		var left int
		if err := r.db.Engine().QueryRow(t.Context(), "select count(*) from cancelled_leases").Scan(&left); err != nil {
			t.Fatal(err)
		}
		return left == 0
	}, func() string { return "the lease stays" })
	stop()
	<-done
	attempts := must(a.deliveries.ListAttempts(t.Context(), &kapselv1.ListAttemptsRequest{
		Parent: &kapselv1.ListAttemptsRequest_DeliveryId{DeliveryId: cancelled.Id},
	}))(t).Attempts
	if len(attempts) != 1 {
		t.Errorf("%d attempts, want 1", len(attempts))
	}
}

func TestReplayWhoseFilterCannotBeReadIsStillShown(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	replay := must(a.deliveries.ReplayDeadLetters(t.Context(), &kapselv1.ReplayDeadLettersRequest{Filter: new(kapselv1.DeadLetterFilter)}))(t).Replay
	r.exec(`update replays set filter = '{"fromTheFuture": true}'`)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ledger.NewReplayer(r.db, r.deps.Logger).Run(ctx)
	}()
	r.eventually(func() bool {
		replay = must(a.deliveries.GetReplay(t.Context(), &kapselv1.GetReplayRequest{ReplayId: replay.Id}))(t).Replay
		return replay.Error != ""
	}, func() string { return "no error is shown: " + replay.String() })
	stop()
	<-done
	if replay.State != kapselv1.ReplayState_REPLAY_STATE_RUNNING || replay.Filter != nil {
		t.Errorf("got %v", replay)
	}
	must(a.deliveries.CancelReplay(t.Context(), &kapselv1.CancelReplayRequest{ReplayId: replay.Id}))(t)
}
