package chaos

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// tampered is a service whose database somebody changed, with all rights, while it was stopped.
type tampered struct {
	cluster   *Cluster
	key       string // file of the verifier key
	monitored string // state directory of a monitor that has seen the log whole
	highWater string
}

// Whoever changes the database is found out: by fsck, by a monitor that has seen the log before, and by an audit; each names
// what differs.
func TestTamperedDatabaseIsCaught(t *testing.T) {
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	whole := cluster.DatabaseURL()
	node := cluster.Start(t, "a")
	sink := NewSink(t)
	route := node.CreateRoute(t, sink.URL)
	send := func(count int) {
		posted := Load{IngestURLs: []string{node.IngestURL(route)}, Secret: route.Secret, Count: count, PerSecond: 700, Conns: 8}.Start(ctx, r).Wait(t)
		sink.AwaitAll(t, posted, settlePatience)
		AwaitSettled(t, whole, settlePatience)
	}
	stop := func() {
		if code := node.Terminate(t, drainPatience); code != 0 {
			t.Fatalf("exit code %d after SIGTERM", code)
		}
	}
	send(300)
	stop()
	cluster.copyDatabase(ctx, t, "postgres", "earlier")
	node.Restart(t)
	send(300)
	tamper := &tampered{
		cluster: cluster, key: filepath.Join(t.TempDir(), "log.pub"), monitored: filepath.Join(t.TempDir(), "monitor"),
		highWater: filepath.Join(cluster.state, "a", "log.highwater"),
	}
	node.Log(t).AwaitLeaves(t, 600, settlePatience)
	var log struct {
		Log struct {
			Keys []struct{ VerifierKey string }
		}
	}
	node.API().Call(t, "AttestationService/GetLog", object{}, &log)
	if err := os.WriteFile(tamper.key, []byte(log.Log.Keys[0].VerifierKey), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		tamper.monitor(node, whole, tamper.monitored),
		{"audit", node.URL + "/log/1", "--key", "@" + tamper.key, "--state-dir", tamper.monitored, "--database-url", whole, "--api-key", cluster.APIKey},
	} {
		if code, stdout, stderr := Run(t, args...); code != 0 {
			t.Fatalf("kapsel %s of a log that is whole: exit code %d\n%s%s", args[0], code, stdout, stderr)
		}
	}
	stop()

	for _, c := range []struct {
		name, from, sql      string
		fsck, monitor, audit string // what each must say
	}{
		{"an attempt row is changed", "postgres", `update attempts set leaf = set_byte(leaf, 60, get_byte(leaf, 60) # 1) where leaf_index = 5`,
			"tile/0/000", "leaf 5 has other bytes", "leaf 5 has other bytes"},
		{"a tile is changed", "postgres", `update tiles set hashes = set_byte(hashes, 40, get_byte(hashes, 40) # 1) where level = 0 and tile_index = 1`,
			"tile/0/001: is not what the leaves give", "leaf 257", "hash 1 of tile/1/000"},
		{"a head is replaced", "postgres", "",
			"tree size", "two versions", "was signed with root"},
		{"leaves are deleted", "postgres", `delete from attempts where leaf_index between 100 and 110`,
			"leaf 100: and all up to 110 are missing", "leaves 100 to 110 are missing", "leaves 100 to 110 are missing"},
		{"the log is rolled back", "earlier", "",
			"is the high-water mark, but the log has only", "it was cut back", "it was cut back"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name := "tampered_" + strings.ReplaceAll(c.name, " ", "_")
			url := cluster.copyDatabase(ctx, t, c.from, name)
			conn, err := pgx.Connect(ctx, url)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.WithoutCancel(ctx))
			if c.name == "a head is replaced" {
				tamper.replaceHead(ctx, t, conn)
			} else if _, err := conn.PgConn().Exec(ctx, "set session_replication_role = replica; "+c.sql).ReadAll(); err != nil {
				t.Fatal(err)
			}
			tamper.check(t, url, name, c.fsck, c.monitor, c.audit)
		})
	}
}

// check starts a node on a tampered database and asks all three. The node has the keys, and no high-water mark: it is the
// operator who tampers.
func (d *tampered) check(t *testing.T, databaseURL, name, fsck, monitor, audit string) {
	t.Helper()
	caught := func(want string, args ...string) {
		t.Helper()
		code, stdout, stderr := Run(t, args...)
		if code != 1 || !strings.Contains(stdout+stderr, want) {
			t.Errorf("kapsel %s: exit code %d, want 1 and %q in\n%s%s", args[0], code, want, stdout, stderr)
		}
	}
	caught(fsck, "fsck", "--database-url", databaseURL, "--high-water", d.highWater)

	whole := d.cluster.databaseURL
	d.cluster.databaseURL = databaseURL
	node := d.cluster.Start(t, name)
	d.cluster.databaseURL = whole
	defer node.Kill()
	state := filepath.Join(t.TempDir(), "monitor")
	if err := os.CopyFS(state, os.DirFS(d.monitored)); err != nil {
		t.Fatal(err)
	}
	caught(monitor, d.monitor(node, databaseURL, state)...)
	if evidence, err := filepath.Glob(filepath.Join(state, "evidence-*.json")); err != nil || len(evidence) != 1 {
		t.Errorf("evidence: %v, %v", evidence, err)
	} else if data, err := os.ReadFile(evidence[0]); err != nil || strings.Count(string(data), "\\n\\n") != 2 {
		t.Errorf("evidence without both heads: %v\n%s", err, data)
	}
	args := []string{"audit", node.URL + "/log/1", "--key", "@" + d.key}
	if strings.Contains(audit, "lea") { // nobody but the database has the leaves
		args = append(args, "--database-url", databaseURL)
	}
	if name == "tampered_the_log_is_rolled_back" { // nothing else can tell an audit that there was more once
		args = append(args, "--state-dir", d.monitored)
	}
	caught(audit, args...)
}

func (d *tampered) monitor(node *Node, databaseURL, state string) []string {
	return []string{"monitor", node.URL + "/log/1", "--key", "@" + d.key, "--state-dir", state, "--once", "--patience", "0s",
		"--audit-every", "1h", "--database-url", databaseURL}
}

// replaceHead puts another root under the last head's size, signed with the log's own key.
func (d *tampered) replaceHead(ctx context.Context, t *testing.T, conn *pgx.Conn) {
	t.Helper()
	text, err := os.ReadFile(d.cluster.keyFile(t))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	head := checkpoint.Checkpoint{Root: merkle.LeafHash([]byte("another history"))}
	var at time.Time
	err = conn.QueryRow(ctx, "select l.origin, h.tree_size, h.signed_at from tree_heads h join logs l using (log_id) order by tree_size desc limit 1").Scan(&head.Origin, &head.Size, &at)
	if err != nil {
		t.Fatal(err)
	}
	note, err := checkpoint.Sign(head, at.UTC(), private.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	for _, sql := range []string{"update tree_heads set root_hash = $1, note = $2 where tree_size = $3", "update log_sealers set root_hash = $1 where $2 <> '' and tree_size = $3"} {
		if _, err := conn.Exec(ctx, sql, head.Root[:], note, head.Size); err != nil {
			t.Fatal(err)
		}
	}
}

// copyDatabase copies a database that nobody is connected to, and returns the copy's address.
func (c *Cluster) copyDatabase(ctx context.Context, t *testing.T, from, to string) string {
	t.Helper()
	conn, err := pgx.Connect(ctx, c.Postgres.ConnString("template1"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "create database "+pgx.Identifier{to}.Sanitize()+" template "+from); err != nil {
		t.Fatal(err)
	}
	return c.Postgres.ConnString(to)
}
