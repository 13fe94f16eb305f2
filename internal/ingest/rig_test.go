package ingest

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/delivery"
	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/limit"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	testLogID = 1
	// patience bounds every wait for something that must happen.
	patience = 20 * time.Second
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrate(ctx context.Context, url string) error {
	_, err := store.Migrate(ctx, url)
	return err
}

// rig is a node that takes in, delivers and records, with an endpoint that has one destination.
type rig struct {
	*Ingest
	t                             testing.TB
	db                            *store.DB // not through the proxy
	proxy                         *pgtest.Proxy
	node                          uuid.UUID
	tenant, endpoint, destination uuid.UUID
	routes                        *route.Table
	dispatcher                    *delivery.Dispatcher
	claimer                       *delivery.Claimer

	mu      sync.Mutex
	arrived map[string][][]byte // bodies by webhook-id
}

func newRig(t testing.TB, hold time.Duration) *rig {
	t.Helper()
	return newRigOn(t, pgtest.New(t, migrate), hold)
}

// newRigOn makes a rig whose node reaches the database through a proxy.
func newRigOn(t testing.TB, databaseURL string, hold time.Duration) *rig {
	t.Helper()
	r := &rig{t: t, node: id.New(), tenant: id.New(), endpoint: id.New(), destination: id.New(), arrived: make(map[string][][]byte)}
	r.db = r.open(databaseURL)
	r.proxy = pgtest.NewProxy(t, databaseURL)
	proxied := r.open(r.proxy.URL)
	keys, err := secret.Open(filepath.Join(t.TempDir(), "keyset"), nil)
	if err != nil {
		t.Fatal(err)
	}
	sink := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		body, _ := io.ReadAll(request.Body)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.arrived[request.Header.Get("Webhook-Id")] = append(r.arrived[request.Header.Get("Webhook-Id")], body)
	}))
	t.Cleanup(sink.Close)
	if err := r.db.EnsureLog(t.Context(), r.db.Engine(), testLogID, "log.example.com/log/1"); err != nil {
		t.Fatal(err)
	}
	r.exec(`insert into tenants (tenant_id, display_name) values ($1, '')`, r.tenant)
	r.exec(`insert into endpoints (tenant_id, endpoint_id, display_name, verification, payload_format, max_body_bytes,
		deduplication, event_type_source) values ($1, $2, '', '{}', 'any', 1048576, '{}', '{"kind":"EVENT_TYPE_SOURCE_KIND_HEADER","header":"X-Type"}')`,
		r.tenant, r.endpoint)
	r.exec(`insert into destinations (tenant_id, destination_id, endpoint_id, display_name, url, filter, signing, retry_policy, headers,
		connect_timeout_ms, timeout_ms, max_in_flight) values ($1, $2, $3, '', $4, '{}', '{}', '{}', '[]', 5000, 10000, 32)`,
		r.tenant, r.destination, r.endpoint, sink.URL)
	secretID := id.New()
	ciphertext, err := keys.Seal(secret.New([]byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
		secret.AssociatedData(r.tenant, secretID, route.DestinationSecretPurpose))
	if err != nil {
		t.Fatal(err)
	}
	r.exec(`insert into destination_secrets (tenant_id, destination_id, secret_id, ciphertext) values ($1, $2, $3, $4)`,
		r.tenant, r.destination, secretID, ciphertext)

	log := slog.New(slog.DiscardHandler)
	r.routes = route.NewTable(r.db, keys, log)
	r.refresh()
	recorder := ledger.NewRecorder(r.db, r.node, testLogID, log, nil)
	leases := delivery.NewLeases(r.db, r.node, log)
	sender := delivery.NewSender([]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, "test")
	r.dispatcher = delivery.NewDispatcher(r.node, sender, recorder, leases, log)
	r.claimer = delivery.NewClaimer(r.db, r.node, delivery.DefaultLease, r.routes, r.dispatcher, leases, log)
	committer := NewCommitter(proxied, r.node, delivery.DefaultLease, hold, r.dispatcher, log)
	r.Ingest = New(committer, limit.New(r.db, log))

	stopCommitter, stopRecorder := start(committer.Run), start(recorder.Run)
	t.Cleanup(func() {
		stopCommitter()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.dispatcher.Stop(ctx); err != nil {
			t.Errorf("stop delivery: %v", err)
		}
		recorder.Close()
		if err := recorder.Wait(ctx); err != nil {
			t.Error(err)
		}
		stopRecorder()
		sender.Close()
	})
	return r
}

// start runs a component; the function it returns ends it.
func start(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func (r *rig) open(databaseURL string) *store.DB {
	r.t.Helper()
	db, err := store.Open(r.t.Context(), databaseURL)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(db.Close)
	return db
}

func (r *rig) refresh() {
	r.t.Helper()
	if err := r.routes.Refresh(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) exec(sql string, arguments ...any) {
	r.t.Helper()
	if _, err := r.db.Engine().Exec(r.t.Context(), sql, arguments...); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
}

func (r *rig) count(sql string, arguments ...any) int {
	r.t.Helper()
	var n int
	err := r.db.Engine().QueryRow(r.t.Context(), sql, arguments...).Scan(&n)
	if err != nil { // a restart or a cut may have left a broken connection in the pool
		r.db.Engine().Reset()
		err = r.db.Engine().QueryRow(r.t.Context(), sql, arguments...).Scan(&n)
	}
	if err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (r *rig) await(want int, sql string, arguments ...any) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); r.count(sql, arguments...) != want; time.Sleep(3 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s: got %d after %v, want %d", sql, r.count(sql, arguments...), patience, want)
		}
	}
}

// block lets nobody write events until unblock is called; who reads them passes.
func (r *rig) block() (unblock func()) {
	r.t.Helper()
	owner, err := pgx.Connect(r.t.Context(), r.proxy.Direct)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { owner.Close(context.Background()) })
	if _, err := owner.Exec(r.t.Context(), "begin; lock table events in share mode"); err != nil {
		r.t.Fatal(err)
	}
	return func() {
		r.t.Helper()
		if _, err := owner.Exec(r.t.Context(), "rollback"); err != nil {
			r.t.Fatal(err)
		}
	}
}

// webhook makes one with that idempotency key, none when it is empty.
func (r *rig) webhook(key, body string) Webhook {
	header := http.Header{"Content-Type": {"application/json"}}
	if key != "" {
		header.Set("Idempotency-Key", key)
	}
	return Webhook{Endpoint: r.routes.Snapshot().Endpoint(r.endpoint), Header: header, Body: []byte(body), ReceivedAt: time.Now(), SourceAddress: "192.0.2.1"}
}

func (r *rig) accept(w Webhook) Receipt {
	r.t.Helper()
	receipt, err := r.Accept(r.t.Context(), w)
	if err != nil {
		r.t.Fatalf("accept: %v", err)
	}
	return receipt
}

// bodies are those that arrived of an event.
func (r *rig) bodies(event uuid.UUID) [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.arrived[id.Event.Text(event)]
}
