package sdktest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"sync"
	"testing"

	"connectrpc.com/connect/v2"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/chaos"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

// listened are the webhooks of one round of a listener, before and after each restart.
const listened = 10

// listening is a listener of one of the SDKs on an endpoint of its own. It forwards to app, but for the first attempt of what has the payload
// "teapot", which it answers with 418, and "nobody", of which it says that nothing listens.
type listening struct {
	name     string
	endpoint string
	app      *chaos.Sink
	sent     []string

	mu       sync.Mutex
	sessions []string
}

func (l *listening) session(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions = append(l.sessions, id)
}

// Listeners of both SDKs go on in their session while the server is stopped and started, and killed and started: each webhook comes to the
// app, and what they report are attempts that are proved. Whoever waits for an event waits on.
func testListening(t *testing.T, s *scene) {
	dev := s.dev
	client := goClient(t, dev.Ready.URL, dev)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	start := func(name string) *listening {
		route, err := client.CreateRoute(ctx, new(kapselv1.Endpoint))
		if err != nil {
			t.Fatal(err)
		}
		return &listening{name: name, endpoint: route.Endpoint.Id, app: chaos.NewSink(t)}
	}
	listeners := []*listening{start("Go")}
	listenGo(ctx, t, &running, dev, listeners[0])
	if s.packed != "" {
		l := start("TypeScript")
		listeners = append(listeners, l)
		listenTypeScript(ctx, t, &running, s.packed, dev, l)
	}
	opened := func(want int) {
		for _, l := range listeners {
			await(t, func() string { return l.opened(want) })
		}
	}
	opened(1)
	send := func(payloads ...string) {
		for _, l := range listeners {
			for _, payload := range payloads {
				response, err := client.Ingest.Ingest(ctx, &kapselv1.IngestRequest{EndpointId: l.endpoint, Payload: []byte(payload)})
				if err != nil {
					t.Fatal(err)
				}
				l.sent = append(l.sent, response.Receipt.EventId)
			}
		}
	}
	send("teapot", "nobody")
	for _, l := range listeners {
		l.checkReports(ctx, t, client, dev)
	}
	resume := waitMeanwhile(ctx, t, &running, client)
	many := slices.Repeat([]string{"{}"}, listened)
	send(many...)
	if code := dev.Terminate(t, patience); code != 0 {
		t.Fatalf("it ended with code %d", code)
	}
	dev.Restart(t)
	send(many...)
	opened(2)
	dev.Kill()
	dev.Restart(t)
	send(many...)
	opened(3)
	resume()
	for _, l := range listeners {
		l.check(ctx, t, client, dev)
	}
}

// waitMeanwhile waits for an event whose destination is paused until resume is called.
func waitMeanwhile(ctx context.Context, t *testing.T, running *sync.WaitGroup, client *kapsel.Client) (resume func()) {
	t.Helper()
	paused := &kapselv1.Destination{Url: chaos.NewSink(t).URL, State: kapselv1.DestinationState_DESTINATION_STATE_PAUSED}
	route, err := client.CreateRoute(ctx, new(kapselv1.Endpoint), paused)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Ingest.Ingest(ctx, &kapselv1.IngestRequest{EndpointId: route.Endpoint.Id, Payload: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	running.Go(func() {
		defer close(ended)
		event, err := client.WaitForEvent(ctx, answer.Receipt.EventId)
		if err != nil || event.State != kapselv1.EventState_EVENT_STATE_DELIVERED {
			t.Errorf("waiting across restarts: %v, %v", event, err)
		}
	})
	return func() {
		t.Helper()
		select {
		case <-ended:
			t.Error("the event has ended before its destination was resumed")
		default:
		}
		if _, err := client.Destinations.ResumeDestination(ctx, &kapselv1.ResumeDestinationRequest{DestinationId: route.Destinations[0].Destination.Id}); err != nil {
			t.Fatal(err)
		}
		<-ended
	}
}

// opened says what is missing of so many openings of the session, "" when nothing is.
func (l *listening) opened(want int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sessions) < want {
		return fmt.Sprintf("%s: the session was opened %d times, want %d", l.name, len(l.sessions), want)
	}
	return ""
}

func (l *listening) check(ctx context.Context, t *testing.T, client *kapsel.Client, dev *chaos.Dev) {
	t.Helper()
	for i, id := range l.sent {
		event, err := client.WaitForEvent(ctx, id)
		if err != nil || event.State != kapselv1.EventState_EVENT_STATE_DELIVERED {
			t.Fatalf("%s: webhook %d: %v, %v", l.name, i, event, err)
		}
		if l.app.Arrivals()[id].Count == 0 {
			t.Errorf("%s: webhook %d is delivered, and the app does not have it", l.name, i)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(slices.Compact(slices.Clone(l.sessions))) != 1 {
		t.Errorf("%s: sessions %v, want one", l.name, l.sessions)
	}
}

// checkReports waits for the first attempts of the teapot's webhook and of nobody's, and looks at what was recorded.
func (l *listening) checkReports(ctx context.Context, t *testing.T, client *kapsel.Client, dev *chaos.Dev) {
	t.Helper()
	for i, want := range []*leafv1.Attempt{
		{StatusCode: http.StatusTeapot, Failure: leafv1.Failure_FAILURE_STATUS},
		{Failure: leafv1.Failure_FAILURE_CONNECT},
	} {
		await(t, func() string {
			if _, err := client.GetVerifiedProofs(ctx, l.sent[i], dev.Ready.PublicKey); err != nil {
				return fmt.Sprintf("%s: %v", l.name, err)
			}
			return ""
		})
		proofs, err := client.GetVerifiedProofs(ctx, l.sent[i], dev.Ready.PublicKey)
		if err != nil {
			t.Fatalf("%s: %v", l.name, err)
		}
		got := proofs[0].Report.Leaf.GetAttempt()
		if got.GetNumber() != 1 || got.GetStatusCode() != want.StatusCode || got.GetOutcome() != leafv1.Outcome_OUTCOME_FAILED || got.GetFailure() != want.Failure {
			t.Errorf("%s: the first attempt is %v, want %v", l.name, got, want)
		}
	}
}

func listenGo(ctx context.Context, t *testing.T, running *sync.WaitGroup, dev *chaos.Dev, l *listening) {
	client := goClient(t, dev.Ready.URL, dev)
	options := kapsel.ListenOptions{Stream: quick(), OnSession: func(s *kapselv1.ListenSession) { l.session(s.Id) }}
	running.Go(func() {
		for incoming, err := range client.ListenDeliveries(ctx, &kapselv1.ListenRequest{EndpointIds: []string{l.endpoint}}, options) {
			if err != nil {
				t.Errorf("Go: %v", err)
				return
			}
			running.Go(func() {
				var err error
				switch payload := string(incoming.Delivery.Payload); {
				case payload == "teapot" && incoming.Delivery.Number == 1:
					err = incoming.Answer(ctx, http.StatusTeapot, []byte("short and stout"))
				case payload == "nobody" && incoming.Delivery.Number == 1:
					err = incoming.Fail(ctx, leafv1.Failure_FAILURE_CONNECT, "nothing listens")
				default:
					_, err = incoming.Forward(ctx, nil, l.app.URL)
				}
				// The server is away, or was, and does not know the attempt any more: it comes again.
				if code := connect.CodeOf(err); err != nil && code != connect.CodeUnavailable && code != connect.CodeNotFound && code != connect.CodeFailedPrecondition && ctx.Err() == nil {
					t.Errorf("Go: %v", err)
				}
			})
		}
	})
}

func listenTypeScript(ctx context.Context, t *testing.T, running *sync.WaitGroup, dir string, dev *chaos.Dev, l *listening) {
	copyFile(t, "testdata/listen.mjs", dir)
	command := exec.Command("node", "listen.mjs", dev.Ready.URL, dev.Ready.APIKey, l.endpoint, l.app.URL)
	command.Dir = dir
	stdout := startUntil(ctx, t, running, command, l.name)
	running.Go(func() {
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			var line struct{ Session, Error string }
			if err := json.Unmarshal(lines.Bytes(), &line); err != nil || line.Error != "" {
				t.Errorf("%s: %v: %s", l.name, err, lines.Bytes())
				continue
			}
			l.session(line.Session)
		}
	})
}
