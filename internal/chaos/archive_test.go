package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/embedpg"
)

// Node and database are killed under load. Recovered to the end of the archive, nothing is lost and the log goes on at once;
// recovered to a moment before the latest head, nothing is signed until the log is begun anew.
func TestArchivedDatabaseIsRecovered(t *testing.T) {
	ctx, r := scenario(t)
	cluster, book := newArchivedCluster(t, r)
	book.run(ctx, "archive")
	if err := cluster.Postgres.Restart(ctx, false); err != nil {
		t.Fatal(err)
	}
	node := cluster.Start(t, "a")
	sink := NewSink(t)
	route := node.CreateRoute(t, sink.URL)
	sources := Load{IngestURLs: []string{node.IngestURL(route)}, Secret: route.Secret, Count: 1200, PerSecond: 200, Conns: 8}.Start(ctx, r)
	sources.AwaitAcked(t, 100)
	book.run(ctx, "base")
	before := node.Log(t).AwaitLeaves(t, 200, startPatience)
	targets := map[string]string{
		"time": query[string](ctx, t, cluster, "select clock_timestamp()::text")[0],
		"lsn":  query[string](ctx, t, cluster, "select pg_current_wal_lsn()::text")[0],
		"name": "before_the_mistake",
	}
	query[any](ctx, t, cluster, "select pg_create_restore_point('before_the_mistake')")
	signed := node.Log(t).AwaitLeaves(t, before.Tree.N+100, startPatience)
	monitor := newLogMonitor(t, node)
	if code, said := monitor.look(t, node); code != 0 {
		t.Fatalf("kapsel monitor: exit code %d, %s", code, said)
	}
	node.Kill()
	book.kill(ctx)

	book.run(ctx, "aside")
	book.run(ctx, "recover")
	book.start(ctx)
	checkGoesOn(t, cluster, node, sources, sink, signed)
	if code, said := monitor.look(t, node); code != 0 {
		t.Errorf("kapsel monitor of the log that went on: exit code %d, %s", code, said)
	}
	latest := node.Log(t).Checkpoint(t)
	if code := node.Terminate(t, drainPatience); code != 0 {
		t.Errorf("exit code %d", code)
	}
	checkArchives(ctx, t, cluster, book)

	mark := filepath.Join(cluster.state, "a", "log.highwater")
	for _, kind := range []string{"lsn", "name", "time"} {
		book.discard(ctx)
		book.run(ctx, "recover")
		book.run(ctx, "target", fmt.Sprintf("TARGET=recovery_target_%s = '%s'", kind, targets[kind]))
		fsck := func(says string) {
			t.Helper()
			if code, out, _ := Run(t, "fsck", "--database-url", cluster.DatabaseURL(), "--high-water", mark); code != 1 || !strings.Contains(out, says) {
				t.Errorf("fsck of a database at an earlier %s: exit code %d, want 1 and %q\n%s", kind, code, says, out)
			}
		}
		if kind == "name" { // looked at before it has ended
			book.pauseAtTarget()
			book.launch(ctx)
			fsck("the server is in recovery")
			for query[string](ctx, t, cluster, "select pg_get_wal_replay_pause_state()")[0] != "paused" {
				time.Sleep(10 * time.Millisecond)
			}
			query[any](ctx, t, cluster, "select pg_wal_replay_resume()")
			book.awaitRecovered(ctx)
		} else {
			book.start(ctx)
		}
		fsck("leaves: it was restored or has lost data")
	}
	node.Restart(t)
	checkRefuses(ctx, t, r, node, route, sink, latest)
	if code, said := monitor.look(t, node); code != 1 || !strings.Contains(said, "it was cut back") {
		t.Errorf("kapsel monitor of an earlier log: exit code %d, %s", code, said)
	}
	node.Terminate(t, drainPatience) // it cannot seal, and so says 1

	dir := filepath.Join(cluster.state, "a")
	key := newLogKey(t, dir)
	forgetNodes(ctx, t, cluster)
	code, verifier, stderr := Run(t, "keys", "restart-log", "--database-url", cluster.DatabaseURL(), "--state-dir", dir, "--origin", "log.example.com/2", "--new-key", key)
	if code != 0 {
		t.Fatalf("restart the log: exit code %d, %s", code, stderr)
	}
	checkEvidence(t, dir, latest.Origin, latest.Tree.N)
	node.Restart(t)
	posted := Load{IngestURLs: []string{node.IngestURL(route)}, Secret: route.Secret, Count: 20, PerSecond: 300, Conns: 8}.Start(ctx, r).Wait(t)
	sink.AwaitAll(t, posted, settlePatience)
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	CheckFsck(t, cluster)
	if head := newLogClient(t, node.URL+"/log/1", key).Checkpoint(t); head.Origin != "log.example.com/2" || head.Tree.N <= before.Tree.N {
		t.Errorf("the new log's head is of %q, size %d", head.Origin, head.Tree.N)
	}
	if code, said := monitor.look(t, node); code != 1 {
		t.Errorf("kapsel monitor of the old log, which has ended: exit code %d, %s", code, said)
	}
	if code, said := monitor.ofKey(t, verifier).look(t, node); code != 0 {
		t.Errorf("kapsel monitor of the new log: exit code %d, %s", code, said)
	}
}

// The archive is written by pg_receivewal, which COMMITs wait for, and the data directory is gone.
func TestStreamedArchiveOutlivesTheDisk(t *testing.T) {
	ctx, r := scenario(t)
	cluster, book := newArchivedCluster(t, r)
	stream := book.begin(ctx, "stream")
	for state := []string(nil); len(state) != 1 || state[0] != "sync"; time.Sleep(10 * time.Millisecond) {
		state = query[string](ctx, t, cluster, "select sync_state from pg_stat_replication where application_name = 'pg_receivewal'")
	}
	node := cluster.Start(t, "a")
	sink := NewSink(t)
	route := node.CreateRoute(t, sink.URL)
	sources := Load{IngestURLs: []string{node.IngestURL(route)}, Secret: route.Secret, Count: 800, PerSecond: 200, Conns: 8}.Start(ctx, r)
	sources.AwaitAcked(t, 100)
	book.run(ctx, "base")
	signed := node.Log(t).AwaitLeaves(t, 300, startPatience)
	node.Kill()
	book.kill(ctx)
	if err := os.RemoveAll(book.variables["PGDATA"]); err != nil {
		t.Fatal(err)
	}
	stream.Process.Kill() // with its server gone it only tries to connect again
	stream.Wait()

	book.run(ctx, "recover")
	book.start(ctx)
	checkGoesOn(t, cluster, node, sources, sink, signed)
	if code := node.Terminate(t, drainPatience); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// checkGoesOn starts the node on the recovered database and fails unless it is as if nothing had happened to it.
func checkGoesOn(t *testing.T, cluster *Cluster, node *Node, sources *Sources, sink *Sink, signed Checkpoint) {
	t.Helper()
	mark := filepath.Join(cluster.state, "a", "log.highwater")
	if code, out, stderr := Run(t, "fsck", "--database-url", cluster.DatabaseURL(), "--high-water", mark); code != 0 {
		t.Fatalf("fsck at the end of the archive: exit code %d\n%s%s", code, out, stderr)
	}
	node.Restart(t)
	posted := sources.Wait(t)
	sink.AwaitAll(t, posted, settlePatience)
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	ledger, arrivals := ReadLedger(t, cluster.DatabaseURL()), sink.Arrivals()
	CheckKept(t, posted, ledger, arrivals)
	repeats := CheckRecorded(t, ledger, arrivals)
	CheckLog(t, node.Log(t), signed, ledger)
	CheckFsck(t, cluster)
	t.Logf("%d webhooks, %d of their requests broken, %d leaves, %d repeats", len(posted), Broken(posted), len(ledger.Leaves), repeats)
}

// checkArchives fails unless archiving, switched on again after a recovery, archives the new timeline into an empty directory.
func checkArchives(ctx context.Context, t *testing.T, cluster *Cluster, book *runbook) {
	t.Helper()
	archive := filepath.Join(book.dir, "archive-2")
	book.run(ctx, "archive", "ARCHIVE="+archive)
	if err := cluster.Postgres.Restart(ctx, false); err != nil {
		t.Fatal(err)
	}
	query[string](ctx, t, cluster, "select pg_switch_wal()::text")
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		if files, _ := filepath.Glob(filepath.Join(archive, "00000002*")); len(files) > 0 {
			return
		}
		if time.Since(began) > startPatience {
			t.Fatal("the recovered server archives nothing")
		}
	}
}

// logMonitor is `kapsel monitor`, with what it has seen.
type logMonitor struct{ key, dir string }

// newLogMonitor trusts the key that the node names.
func newLogMonitor(t *testing.T, node *Node) logMonitor {
	t.Helper()
	var log struct {
		Log struct {
			Keys []struct{ VerifierKey string }
		}
	}
	node.API().Call(t, "AttestationService/GetLog", object{}, &log)
	return logMonitor{}.ofKey(t, log.Log.Keys[0].VerifierKey)
}

// ofKey is a monitor that has seen nothing and trusts the key.
func (logMonitor) ofKey(t *testing.T, verifier string) logMonitor {
	t.Helper()
	m := logMonitor{key: filepath.Join(t.TempDir(), "log.pub"), dir: filepath.Join(t.TempDir(), "monitor")}
	if err := os.WriteFile(m.key, []byte(verifier), 0o600); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m logMonitor) look(t *testing.T, node *Node) (code int, said string) {
	t.Helper()
	code, stdout, stderr := Run(t, "monitor", node.URL+"/log/1", "--key", "@"+m.key, "--state-dir", m.dir, "--once", "--patience", "0s", "--audit-every", "1h")
	return code, stdout + stderr
}

// runbook runs the commands of docs/operations.md, as the user that PostgreSQL runs as.
type runbook struct {
	t         *testing.T
	cluster   *Cluster
	dir       string // of backups
	variables map[string]string
	commands  map[string]string // by the name behind the block's language
}

var archiveCommands = regexp.MustCompile("(?s)```sh skip: internal/chaos runs it \\((\\w+)\\)\n(.*?)```")

// newArchivedCluster is a cluster with a runbook for its database.
func newArchivedCluster(t *testing.T, r *Random) (*Cluster, *runbook) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startPatience)
	defer cancel()
	home := makeDiskDirectory(t)
	database, backups := filepath.Join(home, "postgres"), filepath.Join(home, "backup")
	for _, dir := range []string{database, backups} {
		// As root, PostgreSQL is another user.
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)); err != nil {
			t.Fatal(err)
		}
	}
	book := &runbook{
		t: t, cluster: &Cluster{random: r, state: t.TempDir()}, dir: backups, commands: make(map[string]string),
		variables: map[string]string{
			"ARCHIVE": filepath.Join(backups, "archive"), "BASE": filepath.Join(backups, "base"), "KEEP": filepath.Join(backups, "lost"),
			"PGDATA": filepath.Join(database, "cluster"),
		},
	}
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, block := range archiveCommands.FindAllStringSubmatch(string(page), -1) {
		book.commands[block[1]] = block[2]
	}
	book.start(ctx)
	for _, name := range []string{"psql", "pg_basebackup", "pg_verifybackup", "pg_receivewal"} {
		clientProgram(t, book.cluster, name)
	}
	book.cluster.prepare(t)
	return book.cluster, book
}

// start starts PostgreSQL on what is in PGDATA, and returns when it takes writes.
func (b *runbook) start(ctx context.Context) {
	b.t.Helper()
	b.launch(ctx)
	b.awaitRecovered(ctx)
}

// launch returns when PostgreSQL can be read, which may be long before its recovery has ended.
func (b *runbook) launch(ctx context.Context) {
	b.t.Helper()
	server, err := embedpg.Start(ctx, embedpg.Config{DataDir: filepath.Dir(b.variables["PGDATA"]), Durable: true})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			b.t.Errorf("stop PostgreSQL: %v", err)
		}
	})
	b.cluster.Postgres, b.cluster.databaseURL = server, server.ConnString("postgres")
}

func (b *runbook) awaitRecovered(ctx context.Context) {
	b.t.Helper()
	for query[bool](ctx, b.t, b.cluster, "select pg_is_in_recovery()")[0] {
		time.Sleep(10 * time.Millisecond)
	}
}

// pauseAtTarget keeps a recovery that is to come at its target, until it is told to go on.
func (b *runbook) pauseAtTarget() {
	b.t.Helper()
	file, err := os.OpenFile(filepath.Join(b.variables["PGDATA"], "postgresql.auto.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = file.WriteString("recovery_target_action = pause\n")
	if err := errors.Join(err, file.Close()); err != nil {
		b.t.Fatal(err)
	}
}

// kill ends PostgreSQL as a crash does.
func (b *runbook) kill(ctx context.Context) {
	b.t.Helper()
	if err := errors.Join(b.cluster.Postgres.Kill(ctx), b.cluster.Postgres.Stop(ctx)); err != nil {
		b.t.Fatal(err)
	}
}

// discard stops PostgreSQL and removes its files, for another try.
func (b *runbook) discard(ctx context.Context) {
	b.t.Helper()
	if err := errors.Join(b.cluster.Postgres.Stop(ctx), os.RemoveAll(b.variables["PGDATA"])); err != nil {
		b.t.Fatal(err)
	}
}

// run runs the commands of one block, with variables of the environment more.
func (b *runbook) run(ctx context.Context, name string, variables ...string) {
	b.t.Helper()
	if output, err := b.shell(ctx, name, variables...).CombinedOutput(); err != nil {
		b.t.Fatalf("%s: %v\n%s", name, err, output)
	}
}

// begin starts the commands of a block that goes on until it is killed.
func (b *runbook) begin(ctx context.Context, name string) *exec.Cmd {
	b.t.Helper()
	shell := b.shell(ctx, name)
	if err := shell.Start(); err != nil {
		b.t.Fatal(err)
	}
	return shell
}

func (b *runbook) shell(ctx context.Context, name string, variables ...string) *exec.Cmd {
	b.t.Helper()
	if b.commands[name] == "" {
		b.t.Fatalf("docs/operations.md has no commands named %q", name)
	}
	server, err := pgx.ParseConfig(b.cluster.DatabaseURL())
	if err != nil {
		b.t.Fatal(err)
	}
	programs := filepath.Dir(clientProgram(b.t, b.cluster, "psql"))
	shell := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", b.commands[name])
	shell.Dir = b.dir
	shell.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "HOME="+b.dir, "LC_ALL=C", "PGHOST="+server.Host, "PGUSER="+server.User, "PGDATABASE="+server.Database)
	for name, value := range b.variables {
		shell.Env = append(shell.Env, name+"="+value)
	}
	shell.Env = append(shell.Env, variables...)
	b.cluster.Postgres.Impersonate(shell)
	return shell
}
