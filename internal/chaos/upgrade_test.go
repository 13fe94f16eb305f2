package chaos

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A node of the first schema is replaced by one of today's, which migrates the database under load while the old one goes on:
// no source is refused, nothing is lost, and nothing is doubled.
func TestUpgradeFromTheFirstSchemaUnderLoad(t *testing.T) {
	ctx, r := scenario(t)
	first := buildFirst(t)
	cluster := startCluster(t, r)
	blueDir, blueAddress := filepath.Join(cluster.state, "blue"), FreeAddress(t, r)
	blue := launchProgram(t, first, nil, "serve", "--database-url", cluster.DatabaseURL(), "--listen", blueAddress, "--state-dir", blueDir,
		"--allow-destinations", "127.0.0.0/8", "--hold", Hold.String(), "--seal-age", "1s")
	blueURL := "http://" + blueAddress
	AwaitAnswer(t, blue, blueURL+"/readyz", startPatience)
	key, err := exec.CommandContext(ctx, first, "keys", "create", "--database-url", cluster.DatabaseURL()).Output()
	if err != nil {
		t.Fatalf("make an API key: %v", err)
	}
	sink := NewSink(t)
	sink.SetDelay(20 * time.Millisecond) // so that blue has something in flight when it stops
	route := API{URL: blueURL, Key: strings.TrimSpace(string(key))}.CreateRoute(t, sink.URL)
	before := newLogClient(t, blueURL+"/log/1", cluster.keyFile(t)).Checkpoint(t)

	greenAddress := FreeAddress(t, r)
	count := scaled(5000)
	sources := Load{
		IngestURLs: []string{blueURL + "/ingest/" + route.EndpointID, "http://" + greenAddress + "/ingest/" + route.EndpointID},
		Secret:     route.Secret, Count: count, PerSecond: scaled(400), Conns: 32,
	}.Start(ctx, r)
	sources.AwaitAcked(t, count/10)
	greenDir := filepath.Join(cluster.state, "green")
	if err := cluster.shareKeys(greenDir); err != nil {
		t.Fatal(err)
	}
	green := Launch(t, "serve", "--database-url", cluster.DatabaseURL(), "--listen", greenAddress, "--state-dir", greenDir,
		"--allow-destinations", "127.0.0.0/8", "--hold", Hold.String(), "--seal-age", "1s")
	AwaitAnswer(t, green, "http://"+greenAddress+"/readyz", startPatience)
	migrated := sources.acked.Load()
	time.Sleep(2 * time.Second) // both are at work on the new schema
	if code := blue.Terminate(t, drainPatience); code != 0 {
		t.Errorf("exit code %d of the old version: want 0", code)
	}
	atStop := sources.acked.Load()
	posted := sources.Wait(t)
	if atStop == int64(count) || migrated == atStop {
		t.Error("the load had ended before the old version: this run has shown nothing")
	}
	for _, p := range posted {
		for _, refusal := range p.Refusals {
			t.Errorf("a source was refused with status %d: %s", refusal.Status, refusal.Body)
		}
	}
	sink.AwaitAll(t, posted, settlePatience)
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	ledger, arrivals := ReadLedger(t, cluster.DatabaseURL()), sink.Arrivals()
	CheckKept(t, posted, ledger, arrivals)
	if repeats := CheckRecorded(t, ledger, arrivals); repeats > 0 || len(ledger.Leaves) != count {
		t.Errorf("%d webhooks made %d leaves and %d repeats: want a leaf each, and no repeat", count, len(ledger.Leaves), repeats)
	}
	if workers := nodesIn(ledger); len(workers) != 2 {
		t.Errorf("%d versions made attempts: want 2", len(workers))
	}
	CheckLog(t, newLogClient(t, "http://"+greenAddress+"/log/1", cluster.keyFile(t)), before, ledger)
	CheckFsck(t, cluster)
	// And back: the old version runs on the new schema.
	if code := green.Terminate(t, drainPatience); code != 0 {
		t.Errorf("exit code %d of the new version: want 0", code)
	}
	back := launchProgram(t, first, nil, "serve", "--database-url", cluster.DatabaseURL(), "--listen", blueAddress, "--state-dir", blueDir,
		"--allow-destinations", "127.0.0.0/8", "--seal-age", "1s")
	AwaitAnswer(t, back, blueURL+"/readyz", startPatience)
	sink.SetDelay(0)
	more := Load{IngestURLs: []string{blueURL + "/ingest/" + route.EndpointID}, Secret: route.Secret, Count: 100, PerSecond: 100, Conns: 4}.Start(ctx, r).Wait(t)
	sink.AwaitAll(t, more, settlePatience)
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	CheckFsck(t, cluster)
	t.Logf("the new version was ready when %d of %d webhooks were acknowledged, the old one gone at %d; longest gap between acks %v",
		migrated, count, atStop, sources.LongestGap().Round(time.Millisecond))
}

// buildFirst builds the program as it was before the second migration, from the repository's history.
func buildFirst(t *testing.T) string {
	t.Helper()
	git := func(args ...string) string {
		output, err := exec.CommandContext(t.Context(), "git", args...).Output()
		if err != nil {
			t.Skipf("the history of the first schema is not here: git %s: %v", strings.Join(args, " "), err)
		}
		return strings.TrimSpace(string(output))
	}
	added := strings.Fields(git("log", "--reverse", "--diff-filter=A", "--format=%H", "--", ":/migrations/*.sql", ":!/migrations/00001_schema.sql"))
	if len(added) == 0 {
		t.Skip("the history of the first schema is not here: this is no full clone")
	}
	commit := git("rev-parse", added[0]+"^")
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	if err := os.Mkdir(source, 0o755); err != nil {
		t.Fatal(err)
	}
	root := git("rev-parse", "--show-toplevel")
	unpack := exec.CommandContext(t.Context(), "sh", "-c", `git -C "$0" archive "$1" | tar -x -C "$2"`, root, commit, source)
	if output, err := unpack.CombinedOutput(); err != nil {
		t.Fatalf("unpack %s: %v\n%s", commit, err, output)
	}
	path := filepath.Join(dir, "kapsel-first")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-o", path, "./cmd/kapsel")
	build.Dir = source
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", commit, err, output)
	}
	return path
}
