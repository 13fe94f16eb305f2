package kapsel_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

// switchboard is a server with a session, of which each stream gives the deliveries and breaks off.
type switchboard struct {
	kapselv1connect.UnimplementedListenServiceHandler
	deliveries []*kapselv1.ListenDelivery
	opened     []string // sessions that streams asked for
	reports    []*kapselv1.ReportRequest
	failures   int // of reports
}

func (s *switchboard) Listen(_ context.Context, request *kapselv1.ListenRequest, stream kapselv1connect.ListenServiceListenServerStream) error {
	s.opened = append(s.opened, request.SessionId)
	session := &kapselv1.ListenSession{Id: "lsn_1"}
	if err := stream.Send(&kapselv1.ListenResponse{Update: &kapselv1.ListenResponse_Session{Session: session}}); err != nil {
		return err
	}
	for _, delivery := range s.deliveries {
		if err := stream.Send(&kapselv1.ListenResponse{Update: &kapselv1.ListenResponse_Delivery{Delivery: delivery}}); err != nil {
			return err
		}
	}
	return failure(connect.CodeUnavailable)
}

func (s *switchboard) Report(_ context.Context, report *kapselv1.ReportRequest) (*kapselv1.ReportResponse, error) {
	if s.failures > 0 {
		s.failures--
		return nil, failure(connect.CodeUnavailable)
	}
	s.reports = append(s.reports, report)
	return new(kapselv1.ReportResponse), nil
}

func (s *switchboard) client(t *testing.T) *kapsel.Client {
	t.Helper()
	server := connect.NewServer()
	kapselv1connect.RegisterListenServiceHandler(server, s)
	mux := http.NewServeMux()
	connecthttp.Mount(mux, server)
	listening := httptest.NewServer(mux)
	t.Cleanup(listening.Close)
	client, err := kapsel.New(listening.URL, kapsel.WithRetry(fast))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// first calls deal with the first delivery.
func (s *switchboard) first(t *testing.T, deal func(*kapsel.Incoming)) {
	t.Helper()
	options := kapsel.ListenOptions{Stream: kapsel.Stream{Retry: fast}}
	for incoming, err := range s.client(t).ListenDeliveries(t.Context(), new(kapselv1.ListenRequest), options) {
		if err != nil {
			t.Fatal(err)
		}
		deal(incoming)
		return
	}
}

func TestForwardingReportsWhatCameOfIt(t *testing.T) {
	large := bytes.Repeat([]byte("x"), 64<<10+1)
	var got *http.Request
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = r
		switch r.URL.Path {
		case "/echo":
			w.Write(body)
		case "/large":
			w.Write(large)
		case "/moved":
			http.Redirect(w, r, "/echo", http.StatusFound)
		case "/slow":
			<-r.Context().Done()
		case "/upgrade":
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "x")
			w.WriteHeader(http.StatusSwitchingProtocols)
			if conn, _, err := http.NewResponseController(w).Hijack(); err != nil {
				t.Error(err)
			} else {
				t.Cleanup(func() { conn.Close() })
			}
		case "/silent":
			panic(http.ErrAbortHandler)
		}
	}))
	defer app.Close()
	impatient := &http.Client{Timeout: 50 * time.Millisecond}
	for _, test := range []struct {
		url     string
		client  *http.Client
		status  int32
		body    []byte
		failure leafv1.Failure
	}{
		{url: app.URL + "/echo", status: 200, body: []byte("payload")},
		{url: app.URL + "/large", status: 200, body: large},
		{url: app.URL + "/moved", status: 302},
		{url: app.URL + "/upgrade", status: 101},
		{url: app.URL + "/slow", client: impatient, failure: leafv1.Failure_FAILURE_TIMEOUT},
		{url: app.URL + "/silent", failure: leafv1.Failure_FAILURE_PROTOCOL},
		{url: "http://127.0.0.1:1/", failure: leafv1.Failure_FAILURE_CONNECT},
		{url: "http://nobody.invalid/", failure: leafv1.Failure_FAILURE_DNS},
		{url: "https" + strings.TrimPrefix(app.URL, "http"), failure: leafv1.Failure_FAILURE_TLS},
		{url: "ftp://no", failure: leafv1.Failure_FAILURE_PROTOCOL},
	} {
		s := &switchboard{failures: 2, deliveries: []*kapselv1.ListenDelivery{{
			AttemptId: "att_1", Payload: []byte("payload"),
			Headers: []*kapselv1.Header{{Name: "Webhook-Id", Value: "evt_1"}, {Name: "X-Odd", Value: "?", RawValue: []byte("\xe9")}},
		}}}
		s.first(t, func(incoming *kapsel.Incoming) {
			report, err := incoming.Forward(t.Context(), test.client, test.url)
			if err != nil || len(s.reports) != 1 || report.GetResult() == nil {
				t.Fatalf("%s: %v reports, %v", test.url, s.reports, err)
			}
		})
		report, answer := s.reports[0], s.reports[0].GetAnswer()
		if report.SessionId != "lsn_1" || report.AttemptId != "att_1" || report.StartTime == nil || report.Duration.AsDuration() < 0 {
			t.Errorf("%s: the report is %v", test.url, report)
		}
		if answer.GetStatusCode() != test.status || report.GetFailure().GetFailure() != test.failure {
			t.Errorf("%s: the report is %v, want status %d or failure %v", test.url, report, test.status, test.failure)
		}
		if test.body != nil {
			read := test.body[:min(len(test.body), 64<<10)]
			digest := sha256.Sum256(read)
			if !bytes.Equal(answer.BodySha256, digest[:]) || answer.BodyBytes != int64(len(read)) || answer.Truncated != (len(read) < len(test.body)) || len(answer.BodyExcerpt) != min(len(read), 1024) {
				t.Errorf("%s: the body is reported as %d bytes, truncated %v", test.url, answer.BodyBytes, answer.Truncated)
			}
		}
		if test.body != nil && (got.Header.Get("Webhook-Id") != "evt_1" || got.Header.Get("X-Odd") != "\xe9") {
			t.Errorf("%s: the app got %v", test.url, got.Header)
		}
	}
}

// A message for people is cut to what the contract takes, and is text.
func TestFailuresAreCutToTheContract(t *testing.T) {
	s := &switchboard{deliveries: []*kapselv1.ListenDelivery{{AttemptId: "att_1"}}}
	s.first(t, func(incoming *kapsel.Incoming) {
		if err := incoming.Fail(t.Context(), leafv1.Failure_FAILURE_CONFIGURATION, strings.Repeat("é\xff", 2000)); err != nil {
			t.Fatal(err)
		}
	})
	if message := s.reports[0].GetFailure().Message; message != strings.Repeat("é?", 512) {
		t.Errorf("the message has %d bytes", len(message))
	}
}

// A stream that breaks off goes on in its session.
func TestListeningGoesOnInItsSession(t *testing.T) {
	s := &switchboard{deliveries: []*kapselv1.ListenDelivery{{AttemptId: "att_1"}}}
	request := &kapselv1.ListenRequest{EndpointIds: []string{"ep_1"}}
	seen := 0
	for _, err := range s.client(t).ListenDeliveries(t.Context(), request, kapsel.ListenOptions{Stream: kapsel.Stream{Retry: fast}}) {
		if err != nil {
			t.Fatal(err)
		}
		if seen++; seen == 3 {
			break
		}
	}
	if strings.Join(s.opened, " ") != " lsn_1 lsn_1" || request.SessionId != "" {
		t.Errorf("sessions %q were asked for, and the caller's request is now %v", s.opened, request)
	}
}
