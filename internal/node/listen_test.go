package node

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/tenant"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

// listening is a database with two nodes, and a tenant's clients of both.
type listening struct {
	*rig
	nodes   [2]*Node
	clients [2]kapselv1connect.ListenServiceClient
}

func newListening(t *testing.T) *listening {
	t.Helper()
	r := newRig(t)
	l := &listening{rig: r, nodes: [2]*Node{r.start(r.config()), r.start(r.config())}}
	r.configure(5 * time.Second)
	r.refresh(l.nodes[:]...)
	key, _ := r.apiKey(l.nodes[0], "manage")
	for i, n := range l.nodes {
		l.clients[i] = listenClient(t, n, key)
	}
	return l
}

func listenClient(t *testing.T, n *Node, key tenant.Key) kapselv1connect.ListenServiceClient {
	t.Helper()
	transport := new(http.Transport)
	t.Cleanup(transport.CloseIdleConnections)
	client, err := kapsel.New(n.URL(), kapsel.WithAPIKey(key.Text()), kapsel.WithHTTPClient(&http.Client{Transport: transport}))
	if err != nil {
		t.Fatal(err)
	}
	return client.Listen
}

// laptop is a stream of a session.
type laptop struct {
	t       *testing.T
	session *kapselv1.ListenSession
	stream  kapselv1connect.ListenServiceListenClientStream
	end     context.CancelFunc
}

// listen opens a stream on a node, of the session or else a new one, which all nodes know when it returns.
func (l *listening) listen(on int, request *kapselv1.ListenRequest) *laptop {
	l.t.Helper()
	t := l.t.(*testing.T)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	stream, err := l.clients[on].Listen(ctx, request)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	p := &laptop{t: t, stream: stream, end: func() { cancel(); stream.Close() }}
	t.Cleanup(p.end)
	first, err := stream.Receive()
	if err != nil || first.GetSession() == nil {
		t.Fatalf("the first message is %v, %v", first, err)
	}
	p.session = first.GetSession()
	for _, n := range l.nodes {
		if !n.stopping.Load() { // a stopped one has no database any more
			l.refresh(n)
		}
	}
	return p
}

func (p *laptop) next() *kapselv1.ListenDelivery {
	p.t.Helper()
	for {
		message, err := p.stream.Receive()
		if err != nil {
			p.t.Fatalf("the stream ended: %v", err)
		}
		if delivery := message.GetDelivery(); delivery != nil {
			return delivery
		}
	}
}

// ended waits for the end of the stream.
func (p *laptop) ended() error {
	for {
		if _, err := p.stream.Receive(); err != nil {
			return err
		}
	}
}

func answer(session, attempt string, status int32) *kapselv1.ReportRequest {
	body := sha256.Sum256(nil)
	return &kapselv1.ReportRequest{SessionId: session, AttemptId: attempt, StartTime: timestamppb.Now(), Duration: durationpb.New(time.Millisecond),
		Result: &kapselv1.ReportRequest_Answer{Answer: &kapselv1.ListenAnswer{StatusCode: status, BodySha256: body[:]}}}
}

func (l *listening) report(to int, p *laptop, attemptID string, status int32) (*kapselv1.Attempt, error) {
	response, err := l.clients[to].Report(l.t.Context(), answer(p.session.Id, attemptID, status))
	return response.GetAttempt(), err
}

func (l *listening) webhook(to int) {
	l.t.Helper()
	key := id.New().String()
	if status, _ := l.post(l.nodes[to], key, []byte(`{"key":"`+key+`"}`)); status != http.StatusAccepted {
		l.t.Fatalf("posted to node %d: status %d", to, status)
	}
}

// outcomes are those of a delivery's attempts, in their order.
func (l *listening) outcomes(deliveryID string) (outcomes string) {
	l.t.Helper()
	delivery, err := id.Delivery.Parse(deliveryID)
	if err != nil {
		l.t.Fatal(err)
	}
	err = l.owner.QueryRow(context.Background(), "select coalesce(string_agg(outcome::text, ' ' order by leaf_index), '') from attempts where delivery_id = $1 and outcome <> 0", delivery).Scan(&outcomes)
	if err != nil {
		l.t.Fatal(err)
	}
	return outcomes
}

var (
	outcomeSucceeded = fmt.Sprint(int(leafv1.Outcome_OUTCOME_SUCCEEDED))
	outcomeUnknown   = fmt.Sprint(int(leafv1.Outcome_OUTCOME_UNKNOWN))
)

func refusedWith(err error, code connect.Code, reason string) bool {
	return connect.CodeOf(err) == code && kapsel.Reason(err) == reason
}

// Webhooks come to both nodes, one has the stream, and the reports come to the other one. More than are in flight at once, so
// that the node with the stream has to hear of the reports.
func TestStreamOnOneNodeAndReportsToTheOther(t *testing.T) {
	l := newListening(t)
	p := l.listen(0, &kapselv1.ListenRequest{MaxInFlight: 2})
	const webhooks = 20
	for i := range webhooks {
		l.webhook(i % 2)
	}
	for range webhooks {
		got := p.next()
		attempt, err := l.report(1, p, got.AttemptId, 204)
		if err != nil {
			t.Fatal(err)
		}
		if attempt.Id != got.AttemptId || attempt.StatusCode != 204 || attempt.DeliveryId != got.DeliveryId || attempt.EventId != got.Event.Id ||
			string(attempt.PayloadSha256) != string(got.Event.PayloadSha256) {
			t.Errorf("recorded %v of %v", attempt, got)
		}
		if outcomes := l.outcomes(got.DeliveryId); outcomes != outcomeSucceeded {
			t.Errorf("delivery %s has attempts %q", got.DeliveryId, outcomes)
		}
	}
	l.settled(nil)
}

// However often and wherever an attempt is reported, it has one result, and whoever reports that is told so.
func TestAttemptReportedToBothNodesIsRecordedOnce(t *testing.T) {
	l := newListening(t)
	p := l.listen(0, new(kapselv1.ListenRequest))
	for _, statuses := range [][2]int32{{200, 200}, {200, 500}} {
		l.webhook(1)
		got := p.next()
		var errs [2]error
		var reporting sync.WaitGroup
		for i := range errs {
			reporting.Go(func() { _, errs[i] = l.report(i, p, got.AttemptId, statuses[i]) })
		}
		reporting.Wait()
		refused := 0
		for _, err := range errs {
			if refusedWith(err, connect.CodeFailedPrecondition, "REPORT_TOO_LATE") {
				refused++
			} else if err != nil {
				t.Error(err)
			}
		}
		if want := map[bool]int{true: 0, false: 1}[statuses[0] == statuses[1]]; refused != want {
			t.Errorf("of reports %v %d were refused, want %d", statuses, refused, want)
		}
		if outcomes := l.outcomes(got.DeliveryId); strings.Contains(outcomes, " ") || outcomes == "" {
			t.Errorf("after reports %v the delivery has attempts %q", statuses, outcomes)
		}
	}
}

// Who is not the session's tenant, or names what is not, settles nothing and stores nothing.
func TestForeignAndMadeUpReportsChangeNothing(t *testing.T) {
	l := newListening(t)
	p := l.listen(0, new(kapselv1.ListenRequest))
	l.webhook(0)
	got := p.next()

	stranger := *l.rig
	stranger.tenant, stranger.endpoint = id.New(), id.New()
	stranger.configure(5 * time.Second)
	l.refresh(l.nodes[:]...)
	key, _ := stranger.apiKey(l.nodes[1], "manage")
	foreign := &listening{rig: &stranger, nodes: l.nodes, clients: [2]kapselv1connect.ListenServiceClient{listenClient(t, l.nodes[0], key), listenClient(t, l.nodes[1], key)}}
	own := foreign.listen(1, new(kapselv1.ListenRequest))
	other := l.listen(1, new(kapselv1.ListenRequest)) // of the same tenant
	for on := range l.nodes {
		for name, try := range map[string]struct {
			err    error
			reason string
		}{
			"another tenant":                        {second(foreign.report(on, p, got.AttemptId, 200)), "LISTEN_SESSION_NOT_FOUND"},
			"another tenant, with a session":        {second(foreign.report(on, own, got.AttemptId, 200)), "ATTEMPT_NOT_FOUND"},
			"another session":                       {second(l.report(on, other, got.AttemptId, 200)), "ATTEMPT_NOT_FOUND"},
			"an attempt that nobody made":           {second(l.report(on, p, id.Attempt.Text(id.New()), 200)), "ATTEMPT_NOT_FOUND"},
			"a delivery's id for an attempt's":      {second(l.report(on, p, "att_"+strings.TrimPrefix(got.DeliveryId, "dlv_"), 200)), "ATTEMPT_NOT_FOUND"},
			"an attempt in the future":              {second(l.report(on, p, "att_7zzzzzzzzzzzzzzzzzzzzzzzzz", 200)), "ATTEMPT_NOT_FOUND"},
			"an attempt from before there were any": {second(l.report(on, p, "att_00000000000000000000000000", 200)), "ATTEMPT_NOT_FOUND"},
			"a session that nobody opened":          {second(l.report(on, &laptop{session: &kapselv1.ListenSession{Id: id.Session.Text(id.New())}}, got.AttemptId, 200)), "LISTEN_SESSION_NOT_FOUND"},
		} {
			if !refusedWith(try.err, connect.CodeNotFound, try.reason) {
				t.Errorf("reported to node %d by %s: %v, want %s", on, name, try.err, try.reason)
			}
		}
	}
	if n := l.count("select count(*) from listen_attempts where settled_by is not null"); n != 0 {
		t.Errorf("%d attempts are settled", n)
	}
	if _, err := l.report(1, p, got.AttemptId, 200); err != nil {
		t.Errorf("after all these reports, the right one: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestReportAfterTheDeadlineIsTooLateOnAnyNode(t *testing.T) {
	l := newListening(t)
	p := l.listen(0, new(kapselv1.ListenRequest))
	l.webhook(1)
	got := p.next()
	l.exec("update listen_attempts set report_until = now()")
	for on := range l.nodes {
		if _, err := l.report(on, p, got.AttemptId, 200); !refusedWith(err, connect.CodeFailedPrecondition, "REPORT_TOO_LATE") {
			t.Errorf("reported to node %d after the deadline: %v", on, err)
		}
	}
	if outcomes := l.outcomes(got.DeliveryId); outcomes != "" {
		t.Errorf("the delivery has attempts %q", outcomes)
	}
	p.end()
	again := l.listen(1, &kapselv1.ListenRequest{SessionId: p.session.Id})
	if got := again.next(); got.Number != 2 {
		t.Errorf("attempt %d comes after the stream's end, want the second", got.Number)
	}
}

// A client that comes back to another node takes its session with it, though the first node has not noticed that it was gone.
func TestNewestStreamEndsThatOnAnotherNode(t *testing.T) {
	l := newListening(t)
	first := l.listen(0, &kapselv1.ListenRequest{MaxInFlight: 1})
	l.webhook(0)
	lost := first.next()
	l.webhook(1) // waits for its turn
	again := l.listen(1, &kapselv1.ListenRequest{SessionId: first.session.Id})
	if err := first.ended(); !refusedWith(err, connect.CodeNotFound, "LISTEN_SESSION_NOT_FOUND") {
		t.Errorf("the first stream ended with %v", err)
	}
	if _, err := l.report(1, first, lost.AttemptId, 200); !refusedWith(err, connect.CodeFailedPrecondition, "REPORT_TOO_LATE") {
		t.Errorf("reported what was in flight: %v", err)
	}
	numbers := make(map[string]int32)
	for range 2 {
		got := again.next()
		numbers[got.DeliveryId] = got.Number
		if _, err := l.report(0, again, got.AttemptId, 200); err != nil {
			t.Error(err)
		}
	}
	if outcomes := l.outcomes(lost.DeliveryId); numbers[lost.DeliveryId] != 2 || len(numbers) != 2 || outcomes != outcomeUnknown+" "+outcomeSucceeded {
		t.Errorf("the newest stream got attempts %v; that of the first one, %s, has attempts %q", numbers, lost.DeliveryId, outcomes)
	}
	l.settled(nil)
}

// A node stops while two attempts are under way: one is reported to the other node meanwhile and counts, one is not and comes
// again there.
func TestStoppingNodeWaitsForReportsToAnother(t *testing.T) {
	l := newListening(t)
	p := l.listen(0, new(kapselv1.ListenRequest))
	l.webhook(0)
	l.webhook(1)
	reported, forgotten := p.next(), p.next()
	stopped := make(chan struct{})
	go func() {
		l.stop(l.nodes[0])
		close(stopped)
	}()
	eventually(t, "the node stops", func() bool { return readyz(t, l.nodes[0]) != http.StatusOK })
	if _, err := l.report(1, p, reported.AttemptId, 200); err != nil {
		t.Errorf("reported to the other node: %v", err)
	}
	if err := p.ended(); !refusedWith(err, connect.CodeUnavailable, "SHUTTING_DOWN") {
		t.Errorf("the stream ended with %v", err)
	}
	again := l.listen(1, &kapselv1.ListenRequest{SessionId: p.session.Id})
	if got := again.next(); got.DeliveryId != forgotten.DeliveryId || got.Number != 2 {
		t.Errorf("attempt %d of %s comes on the other node, want the second of %s", got.Number, got.DeliveryId, forgotten.DeliveryId)
	} else if _, err := l.report(1, again, got.AttemptId, 200); err != nil {
		t.Error(err)
	}
	if a, b := l.outcomes(reported.DeliveryId), l.outcomes(forgotten.DeliveryId); a != outcomeSucceeded || b != outcomeUnknown+" "+outcomeSucceeded {
		t.Errorf("attempts %q and %q", a, b)
	}
	<-stopped
	l.settled(nil)
}
