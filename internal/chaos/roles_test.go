package chaos

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Three nodes share the work by kind under load: one takes webhooks in, one delivers, one seals and serves the API. The one that
// delivers is replaced and the one that takes in is killed: nothing is lost, and nobody does the work of another.
func TestRolesSplitOverNodesLoseNothing(t *testing.T) {
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	control := cluster.StartAs(t, "control", "seal,api")
	intake := cluster.StartAs(t, "intake", "ingest")
	worker := cluster.StartAs(t, "worker", "deliver")
	sink := NewSink(t)
	sink.SetDelay(20 * time.Millisecond) // so that the worker has something in flight when it stops
	route := control.CreateRoute(t, sink.URL)
	checkRefusals(t, route, intake, worker)
	if _, err := os.Stat(filepath.Join(cluster.state, "intake", keyFiles[0])); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the node that takes in has a key of the log (%v)", err)
	}
	before := control.Log(t).Checkpoint(t)

	count := scaled(2000)
	sources := Load{IngestURLs: []string{intake.IngestURL(route)}, Secret: route.Secret, Count: count, PerSecond: scaled(400), Conns: 32}.Start(ctx, r)
	sources.AwaitAcked(t, count/5)
	takers := nodesWithRole(ctx, t, cluster, "ingest")
	if code := worker.Terminate(t, drainPatience); code != 0 {
		t.Errorf("exit code %d of the node that delivers: want 0", code)
	}
	if n := queueOwnedBy(ctx, t, cluster, takers[0]); n > 0 {
		t.Errorf("the node that only takes in has leased %d deliveries to itself", n)
	}
	sources.AwaitAcked(t, count*2/5)
	worker.Restart(t)
	sources.AwaitAcked(t, count*3/5)
	intake.Kill()
	intake.Restart(t)
	posted := sources.Wait(t)

	sink.AwaitAll(t, posted, settlePatience)
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	ledger, arrivals := ReadLedger(t, cluster.DatabaseURL()), sink.Arrivals()
	CheckKept(t, posted, ledger, arrivals)
	if repeats := CheckRecorded(t, ledger, arrivals); repeats > 0 || len(ledger.Leaves) != count {
		t.Errorf("%d webhooks made %d leaves and %d repeats: want a leaf each, since no node that delivers was killed", count, len(ledger.Leaves), repeats)
	}
	if workers := nodesIn(ledger); len(workers) != 2 { // a node is another one after its restart
		t.Errorf("%d nodes made attempts: want the worker, before and after its restart", len(workers))
	}
	for _, taker := range append(takers, nodesWithRole(ctx, t, cluster, "ingest")...) {
		if nodesIn(ledger)[taker] {
			t.Errorf("node %x has only the role ingest, and made attempts", taker)
		}
	}
	CheckLog(t, control.Log(t), before, ledger)
	CheckFsck(t, cluster)
	for name, node := range map[string]*Node{"intake": intake, "worker": worker, "control": control} {
		if code := node.Terminate(t, drainPatience); code != 0 {
			t.Errorf("exit code %d of %s: want 0", code, name)
		}
	}
}

// checkRefusals has requests come to nodes that do not serve them: all are told to try again elsewhere.
func checkRefusals(t *testing.T, route Route, intake, worker *Node) {
	t.Helper()
	status, body, err := Post(t.Context(), http.DefaultClient, worker.IngestURL(route), route.Secret, "wrong-node", "push", []byte(`{}`))
	if err != nil || status != http.StatusServiceUnavailable || !bytes.Contains(body, []byte(`"code":"served_elsewhere"`)) {
		t.Errorf("a webhook at a node that only delivers: status %d, %s, %v", status, body, err)
	}
	for _, rpc := range []string{"EndpointService/ListEndpoints", "AttestationService/GetTreeHead"} {
		if status, body := intake.API().TryCall(t, rpc, object{}); status != http.StatusServiceUnavailable || !bytes.Contains(body, []byte("role api")) {
			t.Errorf("%s at a node that only takes in: status %d, %s", rpc, status, body)
		}
	}
	if status, body := worker.API().TryCall(t, "IngestService/Ingest", object{}); status != http.StatusServiceUnavailable || !bytes.Contains(body, []byte("role ingest")) {
		t.Errorf("IngestService at a node that only delivers: status %d, %s", status, body)
	}
	answer, err := http.Get(worker.URL + "/log/1/checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
		t.Errorf("the log at a node that only delivers: status %d, headers %v", answer.StatusCode, answer.Header)
	}
	for name, list := range map[string]string{"an unknown role": "ingest,fly", "no role": " "} {
		code, _, stderr := Run(t, "serve", "--roles", list, "--database-url", "postgres://nobody@127.0.0.1:1/none", "--state-dir", t.TempDir())
		if code == 0 || !strings.Contains(stderr, "ingest, api, deliver and seal") {
			t.Errorf("%s: exit code %d, %s", name, code, stderr)
		}
	}
}

// query reads one column of what the database has, as its superuser.
func query[T any](ctx context.Context, t testing.TB, c *Cluster, sql string, args ...any) []T {
	t.Helper()
	conn, err := pgx.Connect(ctx, c.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, _ := conn.Query(ctx, sql, args...)
	values, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return values
}

func nodesWithRole(ctx context.Context, t testing.TB, c *Cluster, role string) [][16]byte {
	t.Helper()
	return query[[16]byte](ctx, t, c, "select node_id from nodes where $1 = any(roles)", role)
}

func queueOwnedBy(ctx context.Context, t testing.TB, c *Cluster, node [16]byte) int64 {
	t.Helper()
	return query[int64](ctx, t, c, "select count(*) from delivery_queue where lease_owner = $1", node)[0]
}
