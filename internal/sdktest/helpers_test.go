package sdktest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"golang.org/x/mod/sumdb/note"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/chaos"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// nobody listens there.
const nobody = "http://127.0.0.1:1/nobody"

// What the helpers of both SDKs promise, against the real server: each end of an event is waited for and proved, and what was made in
// vain is gone.
func testHelpers(t *testing.T, s *scene) {
	sink := chaos.NewSink(t)
	t.Run("Go", func(t *testing.T) { testGoHelpers(t, s.dev, sink) })
	t.Run("TypeScript", func(t *testing.T) {
		dir := s.typeScript(t)
		copyFile(t, "testdata/helpers.mjs", dir)
		said := run(t, dir, nil, "node", "helpers.mjs", s.dev.Ready.URL, s.dev.Ready.APIKey, s.dev.Ready.PublicKey, otherKey(t, s.dev.Ready.PublicKey), sink.URL, nobody)
		var got map[string]string
		if err := json.Unmarshal([]byte(said), &got); err != nil {
			t.Fatalf("%v: %s", err, said)
		}
		for what, want := range map[string]string{
			"delivered": "DELIVERED attempt", "dead": "DEAD_LETTERED attempt dead_letter", "unmatched": "UNMATCHED LEAF_NOT_FOUND",
			"unknown": "EVENT_NOT_FOUND", "route": "INVALID_REQUEST 0 left", "paused": "TimeoutError", "resumed": "DELIVERED", "wrong key": "ProofError signature",
		} {
			if got[what] != want {
				t.Errorf("%s: %q, want %q", what, got[what], want)
			}
		}
	})
}

// otherKey makes a verifier key of the same log's name.
func otherKey(t *testing.T, logKey string) string {
	t.Helper()
	origin, _, _ := strings.Cut(logKey, "+")
	_, other, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	return other
}

func testGoHelpers(t *testing.T, dev *chaos.Dev, sink *chaos.Sink) {
	ctx := t.Context()
	client := goClient(t, dev.Ready.URL, dev)
	send := func(destinations ...*kapselv1.Destination) (*kapsel.Route, *kapselv1.Event) {
		t.Helper()
		route, err := client.CreateRoute(ctx, new(kapselv1.Endpoint), destinations...)
		if err != nil {
			t.Fatal(err)
		}
		event, err := client.IngestAndWait(ctx, &kapselv1.IngestRequest{EndpointId: route.Endpoint.Id, Payload: []byte("{}")})
		if err != nil {
			t.Fatal(err)
		}
		return route, event
	}
	_, delivered := send(&kapselv1.Destination{Url: sink.URL}, &kapselv1.Destination{Url: sink.URL})
	_, dead := send(&kapselv1.Destination{Url: nobody, RetryPolicy: &kapselv1.RetryPolicy{MaxAttempts: 1}})
	_, unmatched := send()
	for _, test := range []struct {
		event  *kapselv1.Event
		state  kapselv1.EventState
		proofs int
	}{
		{delivered, kapselv1.EventState_EVENT_STATE_DELIVERED, 2},
		{dead, kapselv1.EventState_EVENT_STATE_DEAD_LETTERED, 2}, // the attempt, and that it was given up
		{unmatched, kapselv1.EventState_EVENT_STATE_UNMATCHED, 0},
	} {
		proofs, err := client.GetVerifiedProofs(ctx, test.event.Id, dev.Ready.PublicKey)
		if test.event.State != test.state || len(test.event.Headers) == 0 || len(proofs) != test.proofs {
			t.Errorf("event %v with %d proofs, %v: want state %v with %d", test.event, len(proofs), err, test.state, test.proofs)
		}
		if test.proofs == 0 && kapsel.Reason(err) != "LEAF_NOT_FOUND" {
			t.Errorf("an event without attempts is proved with error %v", err)
		}
	}

	refused := (*verify.Error)(nil)
	if _, err := client.GetVerifiedProofs(ctx, delivered.Id, otherKey(t, dev.Ready.PublicKey)); !errors.As(err, &refused) || refused.Check != verify.CheckSignature {
		t.Errorf("another key of the log's name is trusted: %v", err)
	}
	if _, err := client.WaitForEvent(ctx, "evt_00000000000000000000000000"); kapsel.Reason(err) != "EVENT_NOT_FOUND" {
		t.Errorf("an event that is not there is waited for: %v", err)
	}
	if _, err := client.CreateRoute(ctx, &kapselv1.Endpoint{DisplayName: "in vain"}, &kapselv1.Destination{Url: sink.URL}, &kapselv1.Destination{Url: "ftp://no"}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a destination that is none was made: %v", err)
	}
	list, err := client.Endpoints.ListEndpoints(ctx, &kapselv1.ListEndpointsRequest{PageSize: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, endpoint := range list.Endpoints {
		if endpoint.DisplayName == "in vain" {
			t.Error("the endpoint is left of a route that could not be made")
		}
	}
	testWaiting(t, client, sink)
}

// A delivery that is held is waited for until ctx ends, or until the stream tells of its end.
func testWaiting(t *testing.T, client *kapsel.Client, sink *chaos.Sink) {
	ctx := t.Context()
	route, err := client.CreateRoute(ctx, new(kapselv1.Endpoint), &kapselv1.Destination{Url: sink.URL, State: kapselv1.DestinationState_DESTINATION_STATE_PAUSED})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Ingest.Ingest(ctx, &kapselv1.IngestRequest{EndpointId: route.Endpoint.Id, Payload: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if event, err := client.WaitForEvent(short, answer.Receipt.EventId); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a delivery that is held was not waited for: %v, %v", event, err)
	}
	go func() {
		_, err := client.Destinations.ResumeDestination(ctx, &kapselv1.ResumeDestinationRequest{DestinationId: route.Destinations[0].Destination.Id})
		if err != nil {
			t.Error(err)
		}
	}()
	if event, err := client.WaitForEvent(ctx, answer.Receipt.EventId); err != nil || event.State != kapselv1.EventState_EVENT_STATE_DELIVERED {
		t.Errorf("got %v, %v", event, err)
	}
}
