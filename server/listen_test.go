package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

// laptop is an open listening stream, as a client sees it.
type laptop struct {
	r       *rig
	service kapselv1connect.ListenServiceClient
	session *kapselv1.ListenSession
	stream  kapselv1connect.ListenServiceListenClientStream
	end     func()
}

func (r *rig) listen(a account, request *kapselv1.ListenRequest) *laptop {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	stream, err := a.listen.Listen(ctx, request)
	if err != nil {
		cancel()
		r.t.Fatalf("listen: %v", err)
	}
	l := &laptop{r: r, service: a.listen, stream: stream, end: func() { cancel(); stream.Close() }}
	r.t.Cleanup(l.end)
	first, err := stream.Receive()
	if err != nil || first.GetSession() == nil {
		r.t.Fatalf("the first message is %v, %v, want the session", first, err)
	}
	l.session = first.GetSession()
	return l
}

// next is the next delivery, heartbeats left out.
func (l *laptop) next() *kapselv1.ListenDelivery {
	l.r.t.Helper()
	for {
		message, err := l.stream.Receive()
		if err != nil {
			l.r.t.Fatalf("the stream ended: %v", err)
		}
		if delivery := message.GetDelivery(); delivery != nil {
			return delivery
		}
	}
}

func (l *laptop) report(attemptID string, status int32) (*kapselv1.Attempt, error) {
	l.r.t.Helper()
	body := sha256.Sum256([]byte("ok"))
	response, err := l.service.Report(l.r.t.Context(), &kapselv1.ReportRequest{
		SessionId: l.session.Id, AttemptId: attemptID, StartTime: timestamppb.Now(), Duration: durationpb.New(time.Millisecond),
		Result: &kapselv1.ReportRequest_Answer{Answer: &kapselv1.ListenAnswer{StatusCode: status, BodySha256: body[:], BodyBytes: 2, BodyExcerpt: []byte("ok")}},
	})
	return response.GetAttempt(), err
}

func (r *rig) take(a account, endpointID, payload string) (eventID string) {
	r.t.Helper()
	return must(a.ingest.Ingest(r.t.Context(), &kapselv1.IngestRequest{EndpointId: endpointID, Payload: []byte(payload)}))(r.t).Receipt.EventId
}

func TestListenerGetsSignedWebhooksAndItsReportsAreLeaves(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	endpoint, _ := r.endpoint(a, &kapselv1.Endpoint{})
	l := r.listen(a, &kapselv1.ListenRequest{EndpointIds: []string{endpoint.Id}, ForwardUrl: "http://localhost:3000/hooks"})
	eventID := r.take(a, endpoint.Id, `{"n":1}`)

	got := l.next()
	if got.Event.Id != eventID || got.Number != 1 || !bytes.Equal(got.Payload, []byte(`{"n":1}`)) {
		t.Fatalf("got %v, want the first attempt of %s", got, eventID)
	}
	header := make(http.Header)
	for _, h := range got.Headers {
		header.Add(h.Name, h.Value)
	}
	receiver := must(kapsel.NewVerifier(l.session.Secret))(t)
	if _, err := receiver.Verify(header, got.Payload); err != nil {
		t.Errorf("the signature does not verify with the session's secret: %v", err)
	}
	attempt := must(l.report(got.AttemptId, 204))(t)
	if attempt.Id != got.AttemptId || attempt.Outcome != leafv1.Outcome_OUTCOME_SUCCEEDED || attempt.StatusCode != 204 || attempt.Url != "http://localhost:3000/hooks" {
		t.Errorf("recorded %v", attempt)
	}
	r.event(a, eventID, kapselv1.EventState_EVENT_STATE_DELIVERED)
	must(r.deps.Seal(t.Context()))(t)
	must(a.attestation.GetProofPackage(t.Context(), &kapselv1.GetProofPackageRequest{Subject: &kapselv1.GetProofPackageRequest_AttemptId{AttemptId: got.AttemptId}}))(t)

	must(l.report(got.AttemptId, 204))(t)
	_, err := l.report(got.AttemptId, 500)
	wantReason(t, err, connect.CodeFailedPrecondition, "REPORT_TOO_LATE")
}

func TestBrokenListeningStreamLeavesItsDeliveriesPending(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	endpoint, _ := r.endpoint(a, &kapselv1.Endpoint{})
	l := r.listen(a, &kapselv1.ListenRequest{MaxInFlight: 1}) // all endpoints
	r.take(a, endpoint.Id, `{"n":1}`)
	lost := l.next()
	waiting := r.take(a, endpoint.Id, `{"n":2}`)
	if n := r.count("select count(*) from delivery_queue where due_at > '3000-01-01' and lease_owner is null"); n != 1 {
		t.Errorf("%d deliveries are held, want the one that waits: nobody but the stream may take it", n)
	}
	l.end()

	r.eventually(func() bool {
		attempts := must(a.deliveries.ListAttempts(t.Context(), &kapselv1.ListAttemptsRequest{Parent: &kapselv1.ListAttemptsRequest_DeliveryId{DeliveryId: lost.DeliveryId}}))(t).Attempts
		return len(attempts) == 1 && attempts[0].Id == lost.AttemptId && attempts[0].Outcome == leafv1.Outcome_OUTCOME_UNKNOWN
	}, func() string { return "what was sent and not reported is no attempt with outcome UNKNOWN" })
	r.event(a, lost.Event.Id, kapselv1.EventState_EVENT_STATE_PENDING)
	r.event(a, waiting, kapselv1.EventState_EVENT_STATE_PENDING)
	_, err := l.report(lost.AttemptId, 200)
	wantReason(t, err, connect.CodeFailedPrecondition, "REPORT_TOO_LATE")

	again := r.listen(a, &kapselv1.ListenRequest{SessionId: l.session.Id})
	numbers := make(map[string]int32)
	for range 2 {
		got := again.next()
		numbers[got.Event.Id] = got.Number
		must(again.report(got.AttemptId, 200))(t)
	}
	if numbers[lost.Event.Id] != 2 || numbers[waiting] != 1 {
		t.Errorf("after the break came attempts %v, want the second of %s and the first of %s", numbers, lost.Event.Id, waiting)
	}
	r.event(a, lost.Event.Id, kapselv1.EventState_EVENT_STATE_DELIVERED)
	r.event(a, waiting, kapselv1.EventState_EVENT_STATE_DELIVERED)
}

func TestNewestStreamOfASessionTakesOver(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	r.endpoint(a, &kapselv1.Endpoint{})
	first := r.listen(a, new(kapselv1.ListenRequest))
	r.listen(a, &kapselv1.ListenRequest{SessionId: first.session.Id})
	for {
		if _, err := first.stream.Receive(); err != nil {
			wantReason(t, err, connect.CodeNotFound, "LISTEN_SESSION_NOT_FOUND")
			return
		}
	}
}

// A session's destination can be changed like any other. Its stream keeps no order: a webhook is there when it comes.
func TestListeningDestinationKeepsNoOrderAndCanBePaused(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	endpoint, _ := r.endpoint(a, &kapselv1.Endpoint{})
	l := r.listen(a, &kapselv1.ListenRequest{ForwardUrl: "http://localhost:3000"})
	must(a.destinations.UpdateDestination(t.Context(), &kapselv1.UpdateDestinationRequest{DestinationId: l.session.DestinationId, UpdateMask: mask("ordering"),
		Destination: &kapselv1.Destination{Ordering: &kapselv1.Ordering{Key: &kapselv1.Ordering_JsonPath{JsonPath: "key"}}}}))(t)
	must(a.destinations.PauseDestination(t.Context(), &kapselv1.PauseDestinationRequest{DestinationId: l.session.DestinationId}))(t)
	paused := r.take(a, endpoint.Id, `{"key":"k"}`)
	must(a.destinations.ResumeDestination(t.Context(), &kapselv1.ResumeDestinationRequest{DestinationId: l.session.DestinationId}))(t)
	next := r.take(a, endpoint.Id, `{"key":"k"}`)
	for came := map[string]bool{}; !came[paused] || !came[next]; {
		came[l.next().Event.Id] = true
	}
}

func TestSessionThatNobodyResumesEndsInDeadLetters(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	endpoint, _ := r.endpoint(a, &kapselv1.Endpoint{})
	l := r.listen(a, new(kapselv1.ListenRequest))
	l.end()
	r.take(a, endpoint.Id, `{}`)
	r.eventually(func() bool { // the server notes once more when it last saw a session whose stream ends
		if _, err := r.db.Engine().Exec(t.Context(), "update listen_sessions set seen_at = now() - interval '11 minutes'"); err != nil {
			t.Fatal(err)
		}
		if err := r.deps.Listeners.EndSilent(t.Context()); err != nil {
			t.Fatal(err)
		}
		return r.count("select count(*) from removed_destinations")-r.count("select count(*) from listen_sessions") == 1
	}, func() string { return "the session is not ended" })
	stream, err := a.listen.Listen(t.Context(), &kapselv1.ListenRequest{SessionId: l.session.Id})
	if err == nil {
		_, err = stream.Receive()
	}
	wantReason(t, err, connect.CodeNotFound, "LISTEN_SESSION_NOT_FOUND")
}

func TestListenRefusesWhatCannotBeListenedTo(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	refused := func(request *kapselv1.ListenRequest, code connect.Code, reason string) {
		t.Helper()
		stream, err := a.listen.Listen(t.Context(), request)
		if err == nil {
			_, err = stream.Receive()
		}
		wantReason(t, err, code, reason)
	}
	refused(new(kapselv1.ListenRequest), connect.CodeNotFound, "ENDPOINT_NOT_FOUND")
	endpoint, _ := r.endpoint(a, &kapselv1.Endpoint{})
	refused(&kapselv1.ListenRequest{EndpointIds: []string{"ep_01m87j6mtcfcq90hena1ynqzsh"}}, connect.CodeNotFound, "ENDPOINT_NOT_FOUND")
	for range maxListenSessions {
		r.listen(a, &kapselv1.ListenRequest{EndpointIds: []string{endpoint.Id}})
	}
	refused(new(kapselv1.ListenRequest), connect.CodeResourceExhausted, "QUOTA_EXCEEDED")
}

func TestAppThatFailsIsAFailedAttempt(t *testing.T) {
	r := newRig(t)
	a := r.tenant()
	endpoint, _ := r.endpoint(a, &kapselv1.Endpoint{EventTypeSource: &kapselv1.EventTypeSource{
		Kind: kapselv1.EventTypeSourceKind_EVENT_TYPE_SOURCE_KIND_JSON_PATH, JsonPath: "type"}})
	l := r.listen(a, &kapselv1.ListenRequest{EndpointIds: []string{endpoint.Id}, EventTypes: []string{"wanted.*"}})
	other := r.listen(a, &kapselv1.ListenRequest{EndpointIds: []string{endpoint.Id}})
	r.take(a, endpoint.Id, `{"type":"unwanted"}`)
	other.next() // which has no filter
	r.take(a, endpoint.Id, `{"type":"wanted.now"}`)
	got := l.next()
	if got.Event.EventType != "wanted.now" {
		t.Errorf("got an event of type %q", got.Event.EventType)
	}
	response := must(l.service.Report(t.Context(), &kapselv1.ReportRequest{
		SessionId: l.session.Id, AttemptId: got.AttemptId, StartTime: timestamppb.New(time.Unix(1, 0)), Duration: durationpb.New(time.Minute),
		Result: &kapselv1.ReportRequest_Failure{Failure: &kapselv1.ListenFailure{Failure: leafv1.Failure_FAILURE_CONNECT, Message: "connection refused"}},
	}))(t)
	attempt := response.Attempt
	if attempt.Outcome != leafv1.Outcome_OUTCOME_FAILED || attempt.Failure != leafv1.Failure_FAILURE_CONNECT || attempt.Diagnosis != "connection refused" {
		t.Errorf("recorded %v", attempt)
	}
	if age := time.Since(attempt.StartTime.AsTime()); age > time.Minute || attempt.Duration.AsDuration() > time.Minute/2 {
		t.Errorf("what the client's clock says is believed: started %v ago, for %v", age, attempt.Duration.AsDuration())
	}
	r.event(a, got.Event.Id, kapselv1.EventState_EVENT_STATE_PENDING)
}
