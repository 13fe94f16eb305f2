package server

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"connectrpc.com/connect/v2"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
)

func TestSendTestTellsWhatTheDestinationAnswers(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	type request struct {
		header http.Header
		body   []byte
	}
	got := make(chan request, 1)
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- request{r.Header, body}
		io.WriteString(w, "thank you")
	}))
	t.Cleanup(sink.Close)
	created := must(a.destinations.CreateDestination(t.Context(), &kapselv1.CreateDestinationRequest{Destination: &kapselv1.Destination{
		EndpointId: e.Id, Url: sink.URL, State: kapselv1.DestinationState_DESTINATION_STATE_PAUSED,
		Signing: &kapselv1.Signing{IdHeader: "x-acme-id", TimestampHeader: "x-acme-time", SignatureHeader: "x-acme-signature"},
	}}))(t)

	response := must(a.destinations.SendTest(t.Context(), &kapselv1.SendTestRequest{DestinationId: created.Destination.Id}))(t)
	attempt := response.Attempt
	if attempt.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED || attempt.StatusCode != 200 || attempt.Number != 1 || string(attempt.ResponseExcerpt) != "thank you" {
		t.Fatalf("attempt: %v", attempt)
	}
	sent := <-got
	verifier, err := standardwebhooks.NewWebhook(created.Secret)
	if err != nil {
		t.Fatal(err)
	}
	standard := http.Header{"Webhook-Id": sent.header["X-Acme-Id"], "Webhook-Timestamp": sent.header["X-Acme-Time"], "Webhook-Signature": sent.header["X-Acme-Signature"]}
	if err := verifier.Verify(sent.body, standard); err != nil || string(sent.body) != testPayload || sent.header.Get("Content-Type") != testContentType {
		t.Errorf("%q with %v: %v", sent.body, sent.header, err)
	}
	if sent.header["Webhook-Signature"] != nil {
		t.Error("the standard header is sent beside the named one")
	}
	event := r.event(a, attempt.EventId, kapselv1.EventState_EVENT_STATE_DELIVERED)
	if event.EventType != "kapsel.test" {
		t.Errorf("type %q", event.EventType)
	}
	r.eventually(func() bool {
		return must(a.deliveries.GetAttempt(t.Context(), &kapselv1.GetAttemptRequest{AttemptId: attempt.Id}))(t).Attempt.Sealed
	}, func() string { return "the attempt is not sealed" })
}

func TestTestThatFailsIsADeadLetterAndIsNotTriedAgain(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(503)})
	attempt := must(a.destinations.SendTest(t.Context(), &kapselv1.SendTestRequest{
		DestinationId: d.Id, Payload: []byte("a=1"), ContentType: "application/x-www-form-urlencoded",
	}))(t).Attempt
	if attempt.Outcome != leafv1.Outcome_OUTCOME_FAILED || attempt.StatusCode != 503 {
		t.Errorf("attempt: %v", attempt)
	}
	delivery := must(a.deliveries.GetDelivery(t.Context(), &kapselv1.GetDeliveryRequest{DeliveryId: attempt.DeliveryId}))(t).Delivery
	if delivery.State != kapselv1.DeliveryState_DELIVERY_STATE_DEAD_LETTERED {
		t.Errorf("delivery: %v", delivery)
	}
	_, err := r.tenant().destinations.SendTest(t.Context(), &kapselv1.SendTestRequest{DestinationId: d.Id})
	wantReason(t, err, connect.CodeNotFound, "DESTINATION_NOT_FOUND")
}

// What cannot be signed as it was asked for is not sent, and the destination says why.
func TestDestinationThatCannotBeSignedForIsShownAsDisabled(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	e, _ := r.endpoint(a, &kapselv1.Endpoint{})
	d := r.destination(a, &kapselv1.Destination{EndpointId: e.Id, Url: r.sink(200)})
	if _, err := r.db.Engine().Exec(t.Context(), `update destination_secrets set ciphertext = '\x00'`); err != nil {
		t.Fatal(err)
	}
	attempt := must(a.destinations.SendTest(t.Context(), &kapselv1.SendTestRequest{DestinationId: d.Id}))(t).Attempt
	if attempt.Failure != leafv1.Failure_FAILURE_CONFIGURATION || attempt.StatusCode != 0 {
		t.Errorf("attempt: %v", attempt)
	}
	shown := must(a.destinations.GetDestination(t.Context(), &kapselv1.GetDestinationRequest{DestinationId: d.Id}))(t).Destination
	if shown.State != kapselv1.DestinationState_DESTINATION_STATE_DISABLED || shown.StateDetail == "" ||
		shown.DisableReason != kapselv1.DisableReason_DISABLE_REASON_CONFIGURATION {
		t.Errorf("destination: %v", shown)
	}
}
