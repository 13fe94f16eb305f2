package delivery

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	leafv1 "github.com/kapsel-dev/kapsel/gen/kapsel/leaf/v1"
	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/ledger"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/internal/signature"
	"github.com/kapsel-dev/kapsel/store"
)

const (
	signingSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	testLogID     = 1
	// patience bounds every wait for something that must happen.
	patience = 20 * time.Second
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrate(ctx context.Context, url string) error {
	_, err := store.Migrate(ctx, url)
	return err
}

// loopback allows what the tests' sinks listen on.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func newSink(t testing.TB, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	sink := httptest.NewServer(handler)
	t.Cleanup(sink.Close)
	return sink
}

func newSender(t testing.TB) *Sender {
	sender := NewSender(loopback, "test")
	t.Cleanup(sender.Close)
	return sender
}

func newDestination(t testing.TB, url string) *route.Destination {
	t.Helper()
	signer, err := signature.NewSigner([][]byte{[]byte(signingSecret)})
	if err != nil {
		t.Fatal(err)
	}
	return &route.Destination{
		ID: id.New(), URL: url, Active: true, Signer: signer, SignatureHeaders: route.StandardHeaders,
		ConnectTimeout: 5 * time.Second, Timeout: 10 * time.Second, MaxInFlight: 8,
		Retry: route.RetryPolicy{Schedule: []time.Duration{0}, MaxAttempts: 3},
	}
}

func newEvent(body []byte) *ledger.Event {
	return &ledger.Event{
		TenantID: id.New(), ID: id.New(), EndpointID: id.New(), ReceivedAt: time.Now(), Body: body,
		ContentType: "application/json", Preset: "none", BodySHA256: sha256.Sum256(body),
	}
}

// node is one node's delivery, on a database that it may share.
type node struct {
	*rig
	id         uuid.UUID
	routes     *route.Table
	dispatcher *Dispatcher
	claimer    *Claimer
}

// rig is a database with a tenant and an endpoint.
type rig struct {
	t                testing.TB
	db               *store.DB
	keys             *secret.Keyring
	tenant, endpoint uuid.UUID
}

func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{t: t, tenant: id.New(), endpoint: id.New()}
	db, err := store.Open(t.Context(), pgtest.New(t, migrate))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	r.db = db
	if r.keys, err = secret.Open(filepath.Join(t.TempDir(), "keyset"), nil); err != nil {
		t.Fatal(err)
	}
	if err := db.EnsureLog(t.Context(), db.Engine(), testLogID, "log.example.com/log/1"); err != nil {
		t.Fatal(err)
	}
	r.exec(`insert into tenants (tenant_id, display_name) values ($1, '')`, r.tenant)
	r.exec(`insert into endpoints (tenant_id, endpoint_id, display_name, verification, payload_format, max_body_bytes,
		deduplication, event_type_source) values ($1, $2, '', '{}', 'any', 4096, '{}', '{}')`, r.tenant, r.endpoint)
	return r
}

// node makes a node whose recorder runs until the test ends.
func (r *rig) node() *node {
	r.t.Helper()
	log := slog.New(slog.DiscardHandler)
	n := &node{rig: r, id: id.New(), routes: route.NewTable(r.db, r.keys, log)}
	recorder := ledger.NewRecorder(r.db, n.id, testLogID, log, nil)
	leases := NewLeases(r.db, n.id, log)
	n.dispatcher = NewDispatcher(n.id, newSender(r.t), recorder, leases, log)
	n.claimer = NewClaimer(r.db, n.id, DefaultLease, n.routes, n.dispatcher, leases, log)
	n.refresh()
	done := make(chan error, 1)
	go func() { done <- recorder.Run(context.Background()) }()
	r.t.Cleanup(func() {
		recorder.Close()
		if err := <-done; err != nil {
			r.t.Errorf("recorder: %v", err)
		}
	})
	return n
}

func (n *node) refresh() {
	n.t.Helper()
	if err := n.routes.Refresh(n.t.Context()); err != nil {
		n.t.Fatal(err)
	}
}

// stop waits for what is in flight, so that nothing is left when the recorder closes.
func (n *node) stop() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.dispatcher.Stop(ctx); err != nil {
		n.t.Errorf("stop: %v", err)
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
	if err := r.db.Engine().QueryRow(r.t.Context(), sql, arguments...).Scan(&n); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// await waits until the count that sql gives is want.
func (r *rig) await(want int, sql string, arguments ...any) {
	r.t.Helper()
	eventually(r.t, sql, func() bool { return r.count(sql, arguments...) == want })
}

func eventually(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !happened(); time.Sleep(3 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// destination makes one in the database; the nodes must refresh to see it.
func (r *rig) destination(url string, maxInFlight int) uuid.UUID {
	r.t.Helper()
	destination, secretID := id.New(), id.New()
	r.exec(`insert into destinations (tenant_id, destination_id, endpoint_id, display_name, url, filter, signing, retry_policy,
		headers, connect_timeout_ms, timeout_ms, max_in_flight)
		values ($1, $2, $3, '', $4, '{}', '{}', '{"schedule":["0s"],"maxAttempts":3,"jitter":0}', '[]', 5000, 20000, $5)`,
		r.tenant, destination, r.endpoint, url, maxInFlight)
	ciphertext, err := r.keys.Seal(secret.New([]byte(signingSecret)), secret.AssociatedData(r.tenant, secretID, route.DestinationSecretPurpose))
	if err != nil {
		r.t.Fatal(err)
	}
	r.exec(`insert into destination_secrets (tenant_id, destination_id, secret_id, ciphertext) values ($1, $2, $3, $4)`,
		r.tenant, destination, secretID, ciphertext)
	return destination
}

// event stores one.
func (r *rig) event(body string) *ledger.Event {
	r.t.Helper()
	e := newEvent([]byte(body))
	e.TenantID, e.EndpointID = r.tenant, r.endpoint
	r.exec(`insert into events (tenant_id, event_id, endpoint_id, received_at, body, headers, content_type, event_type, dedup_key,
		source_address, verification, defect) values ($1, $2, $3, $4, $5, '', $6, '', '', '', 'none', '')`,
		r.tenant, e.ID, r.endpoint, e.ReceivedAt, e.Body, e.ContentType)
	return e
}

// due queues a delivery that is due after wait. owner is the node that held it, uuid.Nil for none.
func (r *rig) due(e *ledger.Event, destination uuid.UUID, attempts int, wait time.Duration, owner uuid.UUID) uuid.UUID {
	r.t.Helper()
	deliveryID := id.New()
	r.exec(`insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, attempts, due_at, lease_owner)
		values ($1, $2, $3, $4, $5, $6, now() + $7::float8 * interval '1 s', nullif($8, '00000000-0000-0000-0000-000000000000'::uuid))`,
		r.tenant, deliveryID, e.ID, r.endpoint, destination, attempts, wait.Seconds(), owner)
	return deliveryID
}

// leased queues a delivery that the node holds, and makes the job for it.
func (n *node) leased(e *ledger.Event, destination uuid.UUID, leaseEnds time.Time) Job {
	n.t.Helper()
	return Job{
		Duty:        ledger.Duty{Event: e, DeliveryID: n.due(e, destination, 0, DefaultLease, n.id), DestinationID: destination},
		Destination: n.routes.Snapshot().Destination(destination), LeaseEnds: leaseEnds,
	}
}

// hold reserves room for the job and hands it over.
func (n *node) hold(job Job) {
	n.t.Helper()
	if !n.dispatcher.Reserve(job.Destination, len(job.Event.Body)) {
		n.t.Fatal("no room")
	}
	n.dispatcher.Hold(job)
}

// leaves reads the ledger in the log's order.
func (r *rig) leaves() []*leafv1.Leaf {
	r.t.Helper()
	rows, err := r.db.Engine().Query(r.t.Context(), "select leaf from attempts order by leaf_index")
	if err != nil {
		r.t.Fatal(err)
	}
	defer rows.Close()
	var leaves []*leafv1.Leaf
	for rows.Next() {
		var data []byte
		leaf := new(leafv1.Leaf)
		if err := rows.Scan(&data); err != nil {
			r.t.Fatal(err)
		}
		if err := proto.Unmarshal(data, leaf); err != nil {
			r.t.Fatal(err)
		}
		leaves = append(leaves, leaf)
	}
	if rows.Err() != nil {
		r.t.Fatal(rows.Err())
	}
	return leaves
}
