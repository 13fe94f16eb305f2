package chaos

import (
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/id"
	kapsel "github.com/kapsel-dev/kapsel/sdk/go"
)

// laptops are two nodes with an endpoint that only listeners get webhooks of.
type laptops struct {
	t       *testing.T
	ctx     context.Context
	cluster *Cluster
	a, b    *Node
	db      *pgx.Conn
	ingest  string // endpoint's path
}

func newLaptops(t *testing.T) (*laptops, *Random) {
	t.Helper()
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	l := &laptops{t: t, ctx: ctx, cluster: cluster, a: cluster.Start(t, "a"), b: cluster.Start(t, "b")}
	var made struct{ Endpoint struct{ ID string } }
	// A source that got no answer from a node that was killed posts again.
	l.a.API().Call(t, "EndpointService/CreateEndpoint", object{"endpoint": object{
		"deduplication": object{"source": "DEDUPLICATION_SOURCE_HEADER", "header": "X-GitHub-Delivery"},
	}}, &made)
	l.ingest = "/ingest/" + made.Endpoint.ID
	var err error
	if l.db, err = pgx.Connect(ctx, cluster.DatabaseURL()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.db.Close(context.Background()) })
	return l, r
}

// post posts a webhook to a node and returns its event.
func (l *laptops) post(n *Node, body string) (eventID string) {
	l.t.Helper()
	status, answer, err := Post(l.ctx, http.DefaultClient, n.URL+l.ingest, "", uuid.NewString(), "push", []byte(body))
	if err != nil || status != http.StatusAccepted {
		l.t.Fatalf("post: status %d, %v, %s", status, err, answer)
	}
	var receipt struct {
		EventID string `json:"event_id"`
	}
	if err := json.Unmarshal(answer, &receipt); err != nil {
		l.t.Fatalf("%s: %v", answer, err)
	}
	return receipt.EventID
}

func (l *laptops) client(url string) *kapsel.Client {
	l.t.Helper()
	client, err := kapsel.New(url, kapsel.WithAPIKey(l.cluster.APIKey), kapsel.WithHTTPClient(&http.Client{Transport: new(http.Transport)}))
	if err != nil {
		l.t.Fatal(err)
	}
	return client
}

// listen opens a stream on a node, and returns when all nodes know its session.
func (l *laptops) listen(url string, request *kapselv1.ListenRequest) (session *kapselv1.ListenSession, next func() *kapselv1.ListenDelivery) {
	l.t.Helper()
	stream, err := l.client(url).Listen.Listen(l.ctx, request)
	if err != nil {
		l.t.Fatal(err)
	}
	first, err := stream.Receive()
	if err != nil || first.GetSession() == nil {
		l.t.Fatalf("the first message is %v, %v", first, err)
	}
	time.Sleep(inForcePatience)
	return first.GetSession(), func() *kapselv1.ListenDelivery {
		l.t.Helper()
		for {
			message, err := stream.Receive()
			if err != nil {
				l.t.Fatalf("the stream at %s ended: %v", url, err)
			}
			if delivery := message.GetDelivery(); delivery != nil {
				return delivery
			}
		}
	}
}

func (l *laptops) report(n *Node, session *kapselv1.ListenSession, delivery *kapselv1.ListenDelivery) {
	l.t.Helper()
	_, err := l.client(n.URL).Listen.Report(l.ctx, &kapselv1.ReportRequest{
		SessionId: session.Id, AttemptId: delivery.AttemptId, StartTime: timestamppb.Now(), Duration: durationpb.New(time.Millisecond),
		Result: &kapselv1.ReportRequest_Answer{Answer: &kapselv1.ListenAnswer{StatusCode: 200, BodySha256: make([]byte, 32)}},
	})
	if err != nil {
		l.t.Errorf("report attempt %d of %s: %v", delivery.Number, delivery.Event.Id, err)
	}
}

// settled waits until nothing is queued, and checks the outcomes of the events' attempts, and the whole database.
func (l *laptops) settled(want map[string][]leafv1.Outcome) {
	l.t.Helper()
	AwaitSettled(l.t, l.cluster.DatabaseURL(), settlePatience)
	attempts := ReadAttempts(l.t, l.cluster.DatabaseURL()).Attempts
	for event, outcomes := range want {
		if got := attempts[event]; len(got) != len(outcomes) {
			l.t.Errorf("event %s has attempts %v, want outcomes %v", event, got, outcomes)
			continue
		}
		for i, attempt := range attempts[event] {
			if attempt.Outcome != outcomes[i] || attempt.Number != uint32(i+1) {
				l.t.Errorf("event %s has attempts %v, want outcomes %v", event, attempts[event], outcomes)
			}
		}
	}
	CheckFsck(l.t, l.cluster)
}

func (l *laptops) exec(sql string, arguments ...any) {
	l.t.Helper()
	if _, err := l.db.Exec(l.ctx, sql, arguments...); err != nil {
		l.t.Fatalf("%s: %v", sql, err)
	}
}

func (l *laptops) await(sql string) {
	l.t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		var met bool
		if err := l.db.QueryRow(l.ctx, sql).Scan(&met); err != nil {
			l.t.Fatalf("%s: %v", sql, err)
		}
		if met {
			return
		}
		if time.Since(began) > settlePatience {
			l.t.Fatalf("not within %v: %s", settlePatience, sql)
		}
	}
}

var (
	once  = []leafv1.Outcome{leafv1.Outcome_OUTCOME_SUCCEEDED}
	again = []leafv1.Outcome{leafv1.Outcome_OUTCOME_UNKNOWN, leafv1.Outcome_OUTCOME_SUCCEEDED}
)

// The node with the stream is killed while the app is at work. What the app did and reports to the other node counts; what
// nobody reports is unknown, and comes again there.
func TestKilledNodesAttemptsAreReportedToAnother(t *testing.T) {
	l, _ := newLaptops(t)
	session, next := l.listen(l.a.URL, new(kapselv1.ListenRequest))
	l.post(l.a, "1")
	l.post(l.b, "2")
	done, forgotten := next(), next()
	l.a.Kill()
	// Until it counts as dead the time is the test's to say.
	l.exec("update nodes set heartbeat_at = now() + interval '1 hour' where node_id = (select distinct lease_owner from listen_attempts)")
	l.report(l.b, session, done)
	l.exec("update nodes set heartbeat_at = now() - interval '1 minute' where node_id = (select distinct lease_owner from listen_attempts)")

	_, nextOnB := l.listen(l.b.URL, &kapselv1.ListenRequest{SessionId: session.Id})
	repeated := nextOnB()
	l.report(l.b, session, repeated)
	if repeated.Event.Id != forgotten.Event.Id || repeated.Number != 2 {
		t.Errorf("attempt %d of %s comes again, want the second of %s", repeated.Number, repeated.Event.Id, forgotten.Event.Id)
	}
	l.settled(map[string][]leafv1.Outcome{done.Event.Id: once, forgotten.Event.Id: again})
}

// The laptop's connection is cut and neither side is told. It comes back by another way, to the other node: what went into the
// void comes again, what came meanwhile too.
func TestCutListenerGetsAllOnAnotherNode(t *testing.T) {
	l, r := newLaptops(t)
	link := NewLink(t, r, l.a.URL[len("http://"):])
	session, _ := l.listen("http://"+link.Address, &kapselv1.ListenRequest{MaxInFlight: 1})
	if err := link.Suffer(Cut); err != nil {
		t.Fatal(err)
	}
	lost := l.post(l.a, "1")
	l.await("select exists (select from listen_attempts)")
	waiting := l.post(l.b, "2")
	_, next := l.listen(l.b.URL, &kapselv1.ListenRequest{SessionId: session.Id})
	for range 2 {
		l.report(l.b, session, next())
	}
	l.settled(map[string][]leafv1.Outcome{lost: again, waiting: once})
}

// `kapsel listen` is killed while the app is at work. The webhook stays pending, and comes again to who resumes the session on
// the other node.
func TestKilledListenerLeavesItsDeliveryPending(t *testing.T) {
	l, _ := newLaptops(t)
	arrived, release := make(chan string, 10), make(chan struct{})
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		arrived <- string(body)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(app.Close)
	await := func(want string) {
		t.Helper()
		select {
		case got := <-arrived:
			if got != want {
				t.Fatalf("the app got %q, want %q", got, want)
			}
		case <-time.After(settlePatience):
			t.Fatalf("the app did not get %q", want)
		}
	}
	listen := func(n *Node, flags ...string) *Process {
		return Launch(t, append([]string{"listen", "--forward", app.URL, "--url", n.URL, "--api-key", l.cluster.APIKey}, flags...)...)
	}
	first := listen(l.a)
	l.await("select exists (select from listen_sessions)")
	time.Sleep(inForcePatience)
	eventID := l.post(l.b, "hello")
	await("hello")
	first.Kill()
	close(release)
	l.await("select exists (select from delivery_queue where attempts = 1 and lease_owner is null)") // pending, after an attempt of unknown end

	var sessionID uuid.UUID
	if err := l.db.QueryRow(l.ctx, "select session_id from listen_sessions").Scan(&sessionID); err != nil {
		t.Fatal(err)
	}
	listen(l.b, "--session", id.Session.Text(sessionID))
	await("hello")
	l.settled(map[string][]leafv1.Outcome{eventID: again})
}

// balancer spreads requests over the nodes by turns; one that refuses connections is passed over.
func (l *laptops) balancer() (url string) {
	var turn atomic.Int64
	addresses := []string{l.a.URL[len("http://"):], l.b.URL[len("http://"):]}
	server := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "nodes" },
		Transport: &http.Transport{
			DisableKeepAlives: true, // a connection, and so a turn, for each request
			DialContext: func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
				first := turn.Add(1)
				for i := range int64(len(addresses)) {
					if conn, err = new(net.Dialer).DialContext(ctx, network, addresses[(first+i)%int64(len(addresses))]); err == nil {
						break
					}
				}
				return conn, err
			},
		},
		FlushInterval: -1, // streams
		ErrorLog:      log.New(io.Discard, "", 0),
	})
	l.t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	return server.URL
}

// `kapsel listen` goes through a balancer, so that its stream and each of its reports come to whichever node, while webhooks come to
// both. One node is killed on the way and comes back, then the other one stops. The app gets all, and what it gets is recorded.
func TestListenerBehindABalancerOutlivesItsNodes(t *testing.T) {
	l, r := newLaptops(t)
	sink := NewSink(t)
	sink.SetDelay(20 * time.Millisecond) // so that something is under way
	Launch(t, "listen", "--forward", sink.URL, "--url", l.balancer(), "--api-key", l.cluster.APIKey)
	l.await("select exists (select from listen_sessions)")
	time.Sleep(inForcePatience)
	count := scaled(600)
	sources := Load{IngestURLs: []string{l.a.URL + l.ingest, l.b.URL + l.ingest}, Count: count, PerSecond: scaled(60), Conns: 8}.Start(l.ctx, r)
	sources.AwaitAcked(t, count/4)
	l.a.Kill()
	sources.AwaitAcked(t, count/2)
	l.a.Restart(t)
	sources.AwaitAcked(t, count*3/4)
	if code := l.b.Terminate(t, drainPatience); code != 0 {
		t.Errorf("exit code %d of a node with a listener: want 0", code)
	}
	posted := sources.Wait(t)

	sink.AwaitAll(t, posted, settlePatience)
	AwaitSettled(t, l.cluster.DatabaseURL(), settlePatience)
	ledger, arrivals := ReadLedger(t, l.cluster.DatabaseURL()), sink.Arrivals()
	CheckKept(t, posted, ledger, arrivals)
	repeats := CheckRecorded(t, ledger, arrivals)
	CheckFsck(t, l.cluster)
	t.Logf("%d webhooks, %d attempts of unknown end, %d repeats", count, unknownIn(ledger), repeats)
}
