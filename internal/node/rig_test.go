package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/fault"
	"github.com/kapsel-dev/kapsel/internal/fsck"
	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/secret"
	"github.com/kapsel-dev/kapsel/store"
)

// patience bounds every wait for something that must happen. It is shorter than a lease: what is seen within it did not
// wait for one to run out.
const patience = time.Minute

func TestMain(m *testing.M) { pgtest.Main(m) }

func migrate(ctx context.Context, url string) error {
	_, err := store.Migrate(ctx, url)
	return err
}

// rig is a database with an endpoint and one destination, whose sink counts what arrives.
type rig struct {
	t                testing.TB
	url              string
	owner            *pgxpool.Pool
	state            string // directory of all nodes
	tenant, endpoint uuid.UUID
	sink             *sink
}

func newRig(t testing.TB) *rig {
	t.Helper()
	return newRigOn(t, pgtest.New(t, migrate))
}

func newRigOn(t testing.TB, url string) *rig {
	t.Helper()
	owner, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(owner.Close)
	r := &rig{t: t, url: url, owner: owner, state: t.TempDir(), tenant: id.New(), endpoint: id.New(), sink: newSink(t)}
	return r
}

// config is that of a node which seals often.
func (r *rig) config() Config {
	return Config{
		DatabaseURL: r.url, Listen: "127.0.0.1:0", StateDir: r.state, LogOrigin: "log.example.com/log/1",
		AllowedDestinations: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		SealLeaves:          10, SealAge: 500 * time.Millisecond,
		Logger: slog.New(slog.DiscardHandler),
	}
}

// start starts a node, which is stopped at the end unless the test has stopped it.
func (r *rig) start(config Config) *Node {
	r.t.Helper()
	n, err := Start(r.t.Context(), config)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		if !n.stopping.Load() {
			r.stop(n)
		}
	})
	return n
}

func (r *rig) stop(n *Node) {
	r.t.Helper()
	if err := n.Stop(context.Background()); err != nil {
		r.t.Errorf("stop: %v", err)
	}
}

// configure makes the tenant, the endpoint and the destination, once there is a schema.
func (r *rig) configure(timeout time.Duration) {
	r.t.Helper()
	keys, err := secret.Open(filepath.Join(r.state, "secrets.keyset"), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	destination, secretID := id.New(), id.New()
	ciphertext, err := keys.Seal(secret.New([]byte("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")), secret.AssociatedData(r.tenant, secretID, route.DestinationSecretPurpose))
	if err != nil {
		r.t.Fatal(err)
	}
	r.exec(`insert into tenants (tenant_id, display_name) values ($1, '')`, r.tenant)
	r.exec(`insert into endpoints (tenant_id, endpoint_id, display_name, verification, payload_format, max_body_bytes,
		deduplication, event_type_source) values ($1, $2, '', '{}', 'any', 1048576, '{}', '{}')`, r.tenant, r.endpoint)
	r.exec(`insert into destinations (tenant_id, destination_id, endpoint_id, display_name, url, filter, signing, retry_policy, headers,
		connect_timeout_ms, timeout_ms, max_in_flight)
		values ($1, $2, $3, '', $4, '{}', '{}', '{"schedule":["0s"],"maxAttempts":20,"jitter":0}', '[]', 5000, $5, 256)`,
		r.tenant, destination, r.endpoint, r.sink.URL, timeout.Milliseconds())
	r.exec(`insert into destination_secrets (tenant_id, destination_id, secret_id, ciphertext) values ($1, $2, $3, $4)`,
		r.tenant, destination, secretID, ciphertext)
}

func (r *rig) refresh(nodes ...*Node) {
	r.t.Helper()
	for _, n := range nodes {
		if err := n.Routes().Refresh(r.t.Context()); err != nil {
			r.t.Fatal(err)
		}
	}
}

// one makes a rig with one node.
func one(t testing.TB, change func(*Config)) (*rig, *Node) {
	t.Helper()
	r := newRig(t)
	config := r.config()
	if change != nil {
		change(&config)
	}
	n := r.start(config)
	r.configure(10 * time.Second)
	r.refresh(n)
	return r, n
}

func (r *rig) exec(sql string, arguments ...any) {
	r.t.Helper()
	if _, err := r.owner.Exec(context.Background(), sql, arguments...); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
}

func (r *rig) count(sql string, arguments ...any) int {
	r.t.Helper()
	n := 0
	if err := r.owner.QueryRow(context.Background(), sql, arguments...).Scan(&n); err != nil {
		r.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func eventually(t testing.TB, what string, happened func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !happened(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// post posts one webhook and returns the status of the answer; 0 without one.
func (r *rig) post(n *Node, key string, body []byte) (status int, header http.Header) {
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, n.URL()+"/ingest/"+id.Endpoint.Text(r.endpoint), bytes.NewReader(body))
	if err != nil {
		r.t.Error(err)
		return 0, nil
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", key)
	response, err := client.Do(request)
	if err != nil {
		return 0, nil
	}
	defer response.Body.Close()
	io.Copy(io.Discard, response.Body)
	return response.StatusCode, response.Header
}

var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}, Timeout: 30 * time.Second}

// load posts webhooks, each until it is acknowledged or the test's patience ends, and returns their keys.
func (r *rig) load(webhooks int, pause time.Duration, pick func(i int) *Node) (acked []string) {
	var mu sync.Mutex
	var group sync.WaitGroup
	next := make(chan int)
	for range 8 {
		group.Go(func() {
			for i := range next {
				key := fmt.Sprintf("webhook-%d-%s", i, id.New())
				for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
					status, header := r.post(pick(i), key, []byte(`{"key":"`+key+`"}`))
					if status == http.StatusAccepted {
						mu.Lock()
						acked = append(acked, key)
						mu.Unlock()
						break
					}
					if status != 0 && (status != http.StatusServiceUnavailable || header.Get("Retry-After") == "") {
						r.t.Errorf("%s: status %d, Retry-After %q", key, status, header.Get("Retry-After"))
						break
					}
				}
			}
		})
	}
	for i := range webhooks {
		next <- i
		time.Sleep(pause)
	}
	close(next)
	group.Wait()
	return acked
}

// settled waits until nothing is queued, and checks that the sink took each of the webhooks, and the whole database.
func (r *rig) settled(acked []string) {
	r.t.Helper()
	defer func() {
		if r.t.Failed() {
			r.t.Log(r.queue())
		}
	}()
	eventually(r.t, "the queue is empty", func() bool { return r.count("select count(*) from delivery_queue") == 0 })
	for _, key := range acked {
		if n := r.sink.taken(key); n == 0 {
			r.t.Errorf("%s was acknowledged, and never arrived", key)
		}
	}
	report, err := fsck.Run(context.Background(), fsck.Config{DatabaseURL: r.url, LogID: logID, Deep: true})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, check := range report.Checks {
		if check.Violations > 0 {
			r.t.Errorf("fsck: %s: %d violations: %v", check.Name, check.Violations, check.Shown)
		}
	}
}

// queue says what still waits, for the message of a test that fails.
func (r *rig) queue() []string {
	rows, _ := r.owner.Query(context.Background(), `select format('delivery %s: %s attempts, due in %s, leased to %s (alive %s ago), lost by %s',
		delivery_id, attempts, due_at - now(), lease_owner, now() - heartbeat_at, lost_owner)
		from delivery_queue left join nodes on node_id = lease_owner order by due_at limit 20`)
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return []string{err.Error()}
	}
	return lines
}

// sink is a destination.
type sink struct {
	*httptest.Server

	mu     sync.Mutex
	seen   map[string]int // requests by body
	took   map[string]int // of them answered 200
	answer func(request *http.Request, body string, seen int) (status int)
}

func newSink(t testing.TB) *sink {
	s := &sink{seen: make(map[string]int), took: make(map[string]int)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		data, _ := io.ReadAll(request.Body)
		body := string(data)
		s.mu.Lock()
		s.seen[body]++
		seen, answer := s.seen[body], s.answer
		s.mu.Unlock()
		status := http.StatusOK
		if answer != nil {
			status = answer(request, body, seen)
		}
		if status == http.StatusOK {
			s.mu.Lock()
			s.took[body]++
			s.mu.Unlock()
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *sink) answers(answer func(request *http.Request, body string, seen int) int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// taken is how often a webhook was answered 200.
func (s *sink) taken(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.took[`{"key":"`+key+`"}`]
}

// arrived is how often a webhook arrived whose body begins with its key.
func (s *sink) arrived(key string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for body, times := range s.took {
		if strings.HasPrefix(body, `{"key":"`+key+`"`) {
			n += times
		}
	}
	return n
}

func (s *sink) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, times := range s.seen {
		n += times
	}
	return n
}

// enable makes points fail until the test ends.
func enable(t testing.TB, faults string) {
	t.Helper()
	schedule, err := fault.Parse("seed=7;" + faults)
	if err != nil {
		t.Fatal(err)
	}
	fault.Enable(schedule)
	t.Cleanup(func() { fault.Enable(nil) })
}

// logs collects what a node says.
type logs struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}
