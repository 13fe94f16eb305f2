package chaos

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// A backup is taken of a running service. Restored after more was signed, it makes a node refuse to sign, while intake and
// delivery go on; a newer backup signs on; and without one the service goes on with a new log, which everybody can tell.
func TestRestoredBackupDoesNotForkTheLog(t *testing.T) {
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	dump, restore := clientProgram(t, cluster, "pg_dump"), clientProgram(t, cluster, "pg_restore")
	node := cluster.Start(t, "a")
	sink := NewSink(t)
	route := node.CreateRoute(t, sink.URL)
	post := func(n *Node, count int) []Posted {
		t.Helper()
		posted := Load{IngestURLs: []string{n.IngestURL(route)}, Secret: route.Secret, Count: count, PerSecond: 300, Conns: 8}.Start(ctx, r).Wait(t)
		sink.AwaitAll(t, posted, settlePatience)
		return posted
	}
	backUp := func(name string) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), name)
		run(ctx, t, dump, "--format=custom", "--file", file, "--dbname", cluster.DatabaseURL())
		return file
	}
	restoreTo := func(database, file string) *Cluster {
		t.Helper()
		query[any](ctx, t, cluster, "create database "+pgx.Identifier{database}.Sanitize()+" template template0")
		restored := *cluster
		restored.databaseURL = cluster.Postgres.ConnString(database)
		run(ctx, t, restore, "--exit-on-error", "--dbname", restored.databaseURL, file)
		return &restored
	}

	underWay := Load{IngestURLs: []string{node.IngestURL(route)}, Secret: route.Secret, Count: 400, PerSecond: 200, Conns: 8}.Start(ctx, r)
	underWay.AwaitAcked(t, 150)
	old := backUp("old") // in the middle of the load
	underWay.Wait(t)
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	signed := node.Log(t).AwaitLeaves(t, 400, startPatience)
	if code := node.Terminate(t, drainPatience); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	fresh := backUp("fresh")

	// The newest state: the log goes on where it was.
	newest := restoreTo("newest", fresh)
	CheckFsck(t, newest)
	node = newest.Start(t, "a")
	post(node, 20)
	grown := node.Log(t).AwaitLeaves(t, 420, startPatience)
	node.Log(t).CheckGrown(t, signed, grown)
	node.Terminate(t, drainPatience)

	// An older one: intake and delivery go on, and nothing is signed.
	older := restoreTo("older", old)
	mark := filepath.Join(cluster.state, "a", "log.highwater")
	if code, out, _ := Run(t, "fsck", "--database-url", older.DatabaseURL(), "--high-water", mark); code != 1 || !strings.Contains(out, "high-water") {
		t.Errorf("fsck of the older state with the high-water mark: exit code %d\n%s", code, out)
	}
	node = older.Start(t, "a")
	before := node.Log(t).Checkpoint(t)
	checkRefuses(ctx, t, r, node, route, sink, signed)

	// There is no newer one: a new log, once nobody runs any more.
	path := newLogKey(t, filepath.Join(cluster.state, "a"))
	again := func(c *Cluster, origin, key string) (int, string, string) {
		return Run(t, "keys", "restart-log", "--database-url", c.DatabaseURL(), "--state-dir", filepath.Join(cluster.state, "a"), "--origin", origin, "--new-key", key)
	}
	if code, _, stderr := again(older, "log.example.com/2", path); code == 0 || !strings.Contains(stderr, "stop all of them") {
		t.Errorf("restarting the log beside a running node: exit code %d, %s", code, stderr)
	}
	node.Terminate(t, drainPatience) // it cannot seal, and so says 1
	forgetNodes(ctx, t, older)
	for name, attempt := range map[string]struct {
		cluster     *Cluster
		origin, key string
		says        string
	}{
		"a log that can go on": {newest, "log.example.com/2", path, "can go on"},
		"the old name":         {older, before.Origin, path, "another name"},
		"the old key":          {older, "log.example.com/2", filepath.Join(cluster.state, "a", keyFiles[0]), "was a key of the old log"},
	} {
		if code, _, stderr := again(attempt.cluster, attempt.origin, attempt.key); code == 0 || !strings.Contains(stderr, attempt.says) {
			t.Errorf("%s: exit code %d, %s", name, code, stderr)
		}
	}
	code, verifier, stderr := again(older, "log.example.com/2", path)
	if code != 0 || !strings.HasPrefix(verifier, "log.example.com/2+") {
		t.Fatalf("restart the log: exit code %d, %q, %s", code, verifier, stderr)
	}
	checkEvidence(t, filepath.Join(cluster.state, "a"), before.Origin, grown.Tree.N)
	if code, _, stderr := again(older, "log.example.com/3", path); code == 0 {
		t.Errorf("the new log was given up at once: %s", stderr)
	}
	node = older.Start(t, "a")
	post(node, 20)
	AwaitSettled(t, older.DatabaseURL(), settlePatience)
	head := newLogClient(t, node.URL+"/log/1", path).Checkpoint(t)
	if head.Origin != "log.example.com/2" || head.Tree.N <= before.Tree.N {
		t.Errorf("the new log's head is of %q, size %d", head.Origin, head.Tree.N)
	}
	CheckFsck(t, older)
	if code := node.Terminate(t, drainPatience); code != 0 {
		t.Errorf("exit code %d of the node on the new log", code)
	}
}

// checkRefuses fails unless a node on an earlier state takes in and delivers, signs nothing, and says how to go on.
func checkRefuses(ctx context.Context, t *testing.T, r *Random, node *Node, route Route, sink *Sink, signed Checkpoint) {
	t.Helper()
	before := node.Log(t).Checkpoint(t)
	post := func(count int) {
		posted := Load{IngestURLs: []string{node.IngestURL(route)}, Secret: route.Secret, Count: count, PerSecond: 300, Conns: 8}.Start(ctx, r).Wait(t)
		sink.AwaitAll(t, posted, settlePatience)
	}
	post(100)
	// The database may hold the lease of the sealer that was alive at its moment, for some seconds.
	for began := time.Now(); !strings.Contains(node.stderr.text(), "an operator must look") && time.Since(began) < startPatience; {
		time.Sleep(50 * time.Millisecond)
	}
	post(10) // after the refusal as before it
	if head := node.Log(t).Checkpoint(t); head != before || head.Tree.N >= signed.Tree.N {
		t.Errorf("a head was signed over an earlier database: size %d, before %d, signed once %d", head.Tree.N, before.Tree.N, signed.Tree.N)
	}
	if said := node.stderr.text(); !strings.Contains(said, "an operator must look") || !strings.Contains(said, "kapsel keys restart-log") {
		t.Errorf("the node does not say that it refuses, and how to go on:\n%s", said)
	}
}

// newLogKey makes the key of a new log in a state directory and returns its file.
func newLogKey(t *testing.T, dir string) string {
	t.Helper()
	_, path, stderr := Run(t, "keys", "new-log-key", "--state-dir", dir)
	if path = strings.TrimSpace(path); path == "" {
		t.Fatal(stderr)
	}
	return path
}

// forgetNodes lets the database know that no node runs, without the wait for their heartbeats to be old.
func forgetNodes(ctx context.Context, t *testing.T, cluster *Cluster) {
	t.Helper()
	query[any](ctx, t, cluster, "update nodes set heartbeat_at = now() - interval '1 minute'")
}

// checkEvidence looks for the file and the mark that are kept of a log that was given up.
func checkEvidence(t *testing.T, dir, origin string, signed int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "log.given-up-*.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%d files of evidence, %v", len(files), err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	var evidence struct {
		Origin     string
		Keys       []string
		SignedSize int64  `json:"signed_size"`
		LatestHead string `json:"database_latest_head"`
	}
	if err := json.Unmarshal(text, &evidence); err != nil || evidence.Origin != origin || evidence.SignedSize != signed || len(evidence.Keys) != 1 || evidence.LatestHead == "" {
		t.Errorf("the evidence is %s (%v)", text, err)
	}
	if marks, _ := filepath.Glob(filepath.Join(dir, "log.highwater.given-up-*")); len(marks) != 1 {
		t.Errorf("%d old high-water marks are kept: want 1", len(marks))
	}
}

func clientProgram(t *testing.T, c *Cluster, name string) string {
	t.Helper()
	path, err := c.Postgres.Program(name)
	if err != nil {
		t.Skip(err)
	}
	return path
}

func run(ctx context.Context, t *testing.T, program string, args ...string) {
	t.Helper()
	if output, err := exec.CommandContext(ctx, program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", filepath.Base(program), err, output)
	}
}
