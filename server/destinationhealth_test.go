package server

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
)

// deliverer runs a whole node's delivery beside the server until the test ends: the server's own has no claims and no holder.
func (r *rig) deliverer(breakerPause time.Duration) {
	log, nodeID := slog.New(slog.DiscardHandler), id.New()
	recorder := ledger.NewRecorder(r.db, nodeID, testLogID, log, nil)
	sender := delivery.NewSender(r.deps.AllowedDestinations, "test")
	leases := delivery.NewLeases(r.db, nodeID, log)
	dispatcher := delivery.NewDispatcher(nodeID, sender, recorder, leases, log)
	dispatcher.SetBreakerPause(breakerPause)
	claimer := delivery.NewClaimer(r.db, nodeID, delivery.DefaultLease, r.deps.Routes, dispatcher, leases, log)
	holder := delivery.NewHolder(r.db, r.deps.Routes, dispatcher, claimer, log)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{recorder.Run, claimer.Run, holder.Run} {
		running.Go(func() { run(ctx) })
	}
	r.t.Cleanup(func() {
		dispatcher.Stop(context.Background())
		cancel()
		running.Wait()
		sender.Close()
	})
}

func TestHealthOfADestinationThatFailsAndIsResumed(t *testing.T) {
	r := newRig(t)
	r.deliverer(time.Hour)
	a := r.tenant()
	var mended atomic.Bool
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !mended.Load() {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	t.Cleanup(sink.Close)
	e, _ := r.endpoint(a, &kapselv1.Endpoint{Verification: &kapselv1.Verification{Preset: "none"}})
	d := r.destination(a, &kapselv1.Destination{
		EndpointId: e.Id, Url: sink.URL, MaxInFlight: 1,
		RetryPolicy: &kapselv1.RetryPolicy{Schedule: []*durationpb.Duration{durationpb.New(0)}, MaxAttempts: 100},
	})
	health := func() *kapselv1.DestinationHealth {
		return must(a.destinations.GetDestinationHealth(t.Context(), &kapselv1.GetDestinationHealthRequest{DestinationId: d.Id}))(t).Health
	}
	if got := health(); got.Breaker != kapselv1.BreakerState_BREAKER_STATE_CLOSED || got.LastSuccessTime != nil || got.LastFailure != nil || got.BacklogEstimate != 0 {
		t.Errorf("the health of one that got nothing is %v", got)
	}
	const backlog = 12
	for range backlog {
		r.seedDelivery(a, e.Id, d.Id)
	}
	var last *kapselv1.DestinationHealth
	r.eventually(func() bool {
		last = health()
		return last.Breaker == kapselv1.BreakerState_BREAKER_STATE_OPEN && last.LastFailure != nil && last.OldestDueTime == nil
	}, func() string { return "health is " + last.String() })
	if last.ConsecutiveFailures != 5 || last.FailingSince == nil || last.LastSuccessTime != nil || last.Failed != 5 || last.Succeeded != 0 ||
		last.BacklogEstimate != backlog || time.Until(last.ProbeTime.AsTime()) < 50*time.Minute || last.DurationP99.AsDuration() <= 0 || last.Window.AsDuration() < 4*time.Minute {
		t.Errorf("health is %v", last)
	}
	if f := last.LastFailure; f.Outcome != leafv1.Outcome_OUTCOME_FAILED || f.StatusCode != http.StatusBadGateway || f.DestinationId != d.Id {
		t.Errorf("the last failure is %v", f)
	}
	waiting := must(a.deliveries.ListDeliveries(t.Context(), &kapselv1.ListDeliveriesRequest{DestinationId: d.Id}))(t).Deliveries
	for _, delivery := range waiting {
		if delivery.State != kapselv1.DeliveryState_DELIVERY_STATE_PENDING || !delivery.NextAttemptTime.AsTime().Equal(last.ProbeTime.AsTime()) || delivery.StateDetail == "" {
			t.Errorf("behind the open breaker: %v, want the time of the probe %v", delivery, last.ProbeTime.AsTime())
		}
	}
	if len(waiting) != backlog {
		t.Errorf("%d of %d deliveries are listed", len(waiting), backlog)
	}
	if _, err := r.tenant().destinations.GetDestinationHealth(t.Context(), &kapselv1.GetDestinationHealthRequest{DestinationId: d.Id}); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("another tenant gets %v", err)
	}

	mended.Store(true)
	must(a.destinations.ResumeDestination(t.Context(), &kapselv1.ResumeDestinationRequest{DestinationId: d.Id}))(t)
	r.eventually(func() bool {
		last = health()
		return last.BacklogEstimate == 0 && last.Breaker == kapselv1.BreakerState_BREAKER_STATE_CLOSED && last.LastSuccessTime != nil
	}, func() string { return "health is " + last.String() })
	if last.ConsecutiveFailures != 0 || last.FailingSince != nil || last.ProbeTime != nil {
		t.Errorf("health is %v", last)
	}
}

// seedDelivery queues a delivery of a new event, past intake: the deliverer gets it.
func (r *rig) seedDelivery(a account, endpointID, destinationID string) {
	r.t.Helper()
	eventID, endpoint, destination := id.New(), must(id.Endpoint.Parse(endpointID))(r.t), must(id.Destination.Parse(destinationID))(r.t)
	r.exec(`insert into events (tenant_id, event_id, endpoint_id, received_at, body, headers, content_type, event_type, dedup_key,
		source_address, verification, defect) values ($1, $2, $3, now(), '{}', '', '', '', '', '', 'none', '')`, a.id, eventID, endpoint)
	r.exec(`insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at) values ($1, $2, $3, $4, $5, now())`,
		a.id, id.New(), eventID, endpoint, destination)
}
