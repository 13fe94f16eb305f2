package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"connectrpc.com/connect/v2/connecthttp"
	"connectrpc.com/connect/v2/connectproto"
	"github.com/google/uuid"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/gen/kapsel/v1/kapselv1connect"
	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ingest"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/limit"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/internal/tenant"
	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/watch"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	testLogID  = 1
	testOrigin = "log.example.com/log/1"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrate(ctx context.Context, url string) error {
	_, err := store.Migrate(ctx, url)
	return err
}

// rig is a server on a port and a database of its own, with intake, delivery, recorder and sealer behind it.
type rig struct {
	t    *testing.T
	deps Deps
	db   *store.DB
	url  string
	// database is its connection URL.
	database string
	logged   *lockedBuffer
	key      *tlog.Key
	client   *http.Client
	// stop tells streams that the node stops.
	stop func()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	url := pgtest.New(t, migrate)
	already := goleak.IgnoreCurrent()
	t.Cleanup(func() {
		// net/http keeps a connection whose body it did not read for half a second.
		goleak.VerifyNone(t, already, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
	})

	r := &rig{t: t, database: url, logged: new(lockedBuffer), client: &http.Client{Transport: new(http.Transport)}}
	log := slog.New(slog.NewTextHandler(r.logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	db := must(store.Open(t.Context(), url))(t)
	t.Cleanup(db.Close)
	keys := must(secret.Open(filepath.Join(t.TempDir(), "keyset"), nil))(t)
	r.key = must(tlog.OpenKeyFile(filepath.Join(t.TempDir(), "log.key")))(t)
	if err := tlog.EnsureLog(t.Context(), db.Engine(), testLogID, testOrigin, r.key); err != nil {
		t.Fatal(err)
	}
	allowed := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	nodeID := id.New()
	reader := tlog.NewReader(db.Engine(), testLogID, testOrigin)
	heads := tlog.NewHeads(reader)
	sealer := must(tlog.NewSealer(tlog.Config{
		LogID: testLogID, Origin: testOrigin, Node: nodeID, DB: db.Engine(), Keys: tlog.NewKeys(r.key),
		HighWater: must(tlog.OpenHighWater(filepath.Join(t.TempDir(), "highwater"), testOrigin))(t),
		MaxLeaves: 1, MinInterval: 10 * time.Millisecond, Logger: log, Heads: heads,
	}))(t)
	recorder := ledger.NewRecorder(db, nodeID, testLogID, log, func(int) { sealer.Wake() })
	sender := delivery.NewSender(allowed, "test")
	t.Cleanup(sender.Close)
	leases := delivery.NewLeases(db, nodeID, log)
	dispatcher := delivery.NewDispatcher(nodeID, sender, recorder, leases, log)
	limits := limit.New(db, log)
	recorder.SetUsageMeter(limits)
	committer := ingest.NewCommitter(db, nodeID, delivery.DefaultLease, 5*time.Second, dispatcher, log)
	r.db = db
	stopping, stop := context.WithCancel(context.Background())
	r.stop = stop
	watchers := watch.NewHub(db, testLogID, log)
	routes := route.NewTable(db, keys, log)
	claimer := delivery.NewClaimer(db, nodeID, delivery.DefaultLease, routes, dispatcher, leases, log)
	listeners := delivery.NewListeners(db, nodeID, routes, claimer, dispatcher, log)
	r.deps = Deps{
		Watch: watchers, Listeners: listeners,
		DB: db.Requests, Routes: routes, Ingest: ingest.New(committer, limits), Sources: limit.NewSources(), Keyring: keys,
		Reader: reader, Heads: heads, Seal: sealer.SealAll, Authenticator: tenant.NewAuthenticator(db), Tester: delivery.NewTester(db, nodeID, sender, recorder), Backlog: delivery.NewBacklog(db),
		Eraser:    ledger.NewEraser(db, nodeID, testLogID, log, func(int) { sealer.Wake() }),
		PublicURL: "https://kapsel.example.com/", AllowedDestinations: allowed, Resolver: nameServer(t, nil),
		Logger: log, Version: "test", Stopping: stopping.Done(), Ready: func() error { return nil },
	}

	listener := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	r.url = "http://" + listener.Addr().String()
	server := NewHTTPServer(New(r.deps), nil, slog.NewLogLogger(log.Handler(), slog.LevelDebug))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{committer.Run, recorder.Run, sealer.Run, limits.Run, watchers.Run} {
		running.Go(func() { run(ctx) })
	}
	running.Go(func() { server.Serve(listener) })
	t.Cleanup(func() {
		r.client.CloseIdleConnections()
		stop()
		server.Close()
		dispatcher.Stop(context.Background())
		cancel()
		running.Wait()
	})
	return r
}

// must unwraps a value whose error ends the test.
func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// account is a tenant with a key, and clients that use it.
type account struct {
	id           uuid.UUID
	key          string
	ingest       kapselv1connect.IngestServiceClient
	endpoints    kapselv1connect.EndpointServiceClient
	destinations kapselv1connect.DestinationServiceClient
	events       kapselv1connect.EventServiceClient
	deliveries   kapselv1connect.DeliveryServiceClient
	attestation  kapselv1connect.AttestationServiceClient
	tenants      kapselv1connect.TenantServiceClient
	listen       kapselv1connect.ListenServiceClient
}

func (r *rig) tenant(scopes ...string) account {
	r.t.Helper()
	tenantID := id.New()
	if err := r.deps.DB.CreateTenant(r.t.Context(), r.db.Engine(), tenantID, "test"); err != nil {
		r.t.Fatal(err)
	}
	return r.account(tenantID, r.apiKey(tenantID, scopes...))
}

func (r *rig) apiKey(tenantID uuid.UUID, scopes ...string) string {
	r.t.Helper()
	if len(scopes) == 0 {
		scopes = []string{"admin"}
	}
	key := tenant.NewKey()
	err := r.deps.DB.CreateAPIKey(r.t.Context(), r.db.Engine(), store.CreateAPIKeyParams{
		TenantID: tenantID, KeyID: id.New(), Hint: key.Hint(), SecretHash: key.Hash(), Scopes: scopes,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return key.Text()
}

// account makes clients; without a key they send none.
func (r *rig) account(tenantID uuid.UUID, key string) account {
	client := connect.NewClient(connecthttp.NewTransport(r.client, r.url), func(next connect.ClientFunc) connect.ClientFunc {
		return func(ctx context.Context, spec connect.Spec) (connect.ClientStream, error) {
			if info, found := connect.CallInfoForClientContext(ctx); found && key != "" {
				info.RequestHeader().Set("Authorization", "Bearer "+key)
			}
			return next(ctx, spec)
		}
	})
	return account{
		id: tenantID, key: key,
		ingest:       kapselv1connect.NewIngestServiceClient(client),
		endpoints:    kapselv1connect.NewEndpointServiceClient(client),
		destinations: kapselv1connect.NewDestinationServiceClient(client),
		events:       kapselv1connect.NewEventServiceClient(client),
		deliveries:   kapselv1connect.NewDeliveryServiceClient(client),
		attestation:  kapselv1connect.NewAttestationServiceClient(client),
		tenants:      kapselv1connect.NewTenantServiceClient(client),
		listen:       kapselv1connect.NewListenServiceClient(client),
	}
}

// endpoint makes an endpoint and returns it with its generated secret.
func (r *rig) endpoint(a account, e *kapselv1.Endpoint) (*kapselv1.Endpoint, string) {
	r.t.Helper()
	response, err := a.endpoints.CreateEndpoint(r.t.Context(), &kapselv1.CreateEndpointRequest{Endpoint: e})
	if err != nil {
		r.t.Fatalf("create endpoint: %v", err)
	}
	return response.Endpoint, response.Secret
}

func (r *rig) destination(a account, d *kapselv1.Destination) *kapselv1.Destination {
	r.t.Helper()
	response, err := a.destinations.CreateDestination(r.t.Context(), &kapselv1.CreateDestinationRequest{Destination: d})
	if err != nil {
		r.t.Fatalf("create destination: %v", err)
	}
	return response.Destination
}

// sink is a destination that answers with a status.
func (r *rig) sink(status int) string {
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		io.Copy(io.Discard, request.Body)
		w.WriteHeader(status)
		io.WriteString(w, "thank you")
	}))
	r.t.Cleanup(sink.Close)
	return sink.URL
}

// event waits until an event has the state.
func (r *rig) event(a account, eventID string, want kapselv1.EventState) *kapselv1.Event {
	r.t.Helper()
	var last *kapselv1.Event
	r.eventually(func() bool {
		response, err := a.events.GetEvent(r.t.Context(), &kapselv1.GetEventRequest{EventId: eventID})
		if err != nil {
			r.t.Fatalf("get event %s: %v", eventID, err)
		}
		last = response.Event
		return last.State == want
	}, func() string { return "event is " + last.GetState().String() + ", want " + want.String() })
	return last
}

func (r *rig) eventually(done func() bool, seen func() string) {
	r.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatal(seen())
		}
	}
}

// wantReason fails unless err has the code and ErrorInfo's reason.
func wantReason(t *testing.T, err error, code connect.Code, reason string) *connect.Error {
	t.Helper()
	var connectErr *connect.Error
	if !errors.As(err, &connectErr) {
		t.Fatalf("got error %v, want %s %s", err, code, reason)
	}
	info := detailOf[*errdetails.ErrorInfo](t, connectErr)
	if connectErr.Code() != code || info.GetReason() != reason || info.GetDomain() != "kapsel.dev" {
		t.Fatalf("got %s %q with reason %q of %q, want %s with %q", connectErr.Code(), connectErr.Message(), info.GetReason(),
			info.GetDomain(), code, reason)
	}
	return connectErr
}

// detailOf is the error's detail of type T, or its zero value.
func detailOf[T any](t *testing.T, err *connect.Error) (detail T) {
	t.Helper()
	for _, d := range err.Details() {
		message, decodeErr := connectproto.UnmarshalErrorDetail(d)
		if decodeErr != nil {
			t.Fatal(decodeErr)
		}
		if found, ok := message.(T); ok {
			return found
		}
	}
	return detail
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) contains(text string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Contains(b.buffer.String(), text)
}
