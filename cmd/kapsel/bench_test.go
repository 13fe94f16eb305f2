package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	kapselv1 "github.com/kapsel-dev/kapsel/gen/kapsel/v1"
	"github.com/kapsel-dev/kapsel/internal/bench"
)

func TestBenchRefusesWhatAScenarioDoesNotTake(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"--scenario loud", "--scenario"},
		{"--scenario noisy --dead sleepy", "--dead"},
		{"--scenario noisy --backlog 0", "--backlog"},
		{"--scenario noisy --backlog 10000001", "--backlog"},
		{"--scenario noisy --url http://127.0.0.1:1 --api-key k", "server of its own"},
		{"--scenario inflight --backlog 5", "no dead destination"},
		{"--dead hang", "no dead destination"},
		{"--leaves 5", "--scenario log"},
		{"--scenario log --leaves 0", "--leaves"},
		{"--scenario log --unsealed -1", "--unsealed"},
		{"--keys 5", "--scenario ordered"},
		{"--scenario ordered --keys 0", "--keys"},
		{"--rounds 2", "--rounds"},
		{"--scenario observed --data-dir x", "--data-dir"},
		{"--scenario observed --rounds 101", "--rounds"},
	} {
		code, text := runCaptured(t, append([]string{"bench"}, strings.Fields(test.args)...)...)
		if code != 2 || !strings.Contains(text, test.want) || strings.Count(text, "\n") != 1 {
			t.Errorf("kapsel bench %s: exit %d, %q; want exit 2 and one line with %q", test.args, code, text, test.want)
		}
	}
}

// The rows of a backlog are told from those of intake by nothing but ids, times and payloads.
func TestBacklogIsWhatIntakeWrites(t *testing.T) {
	s, stop, err := startBenchServer(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var err error
		if stop(&err); err != nil {
			t.Error(err)
		}
	})
	// Paused, so that intake finds no room and both stay as they were written.
	way, err := createBenchWay(t.Context(), s.client, &kapselv1.Destination{
		DisplayName: "Paused", Url: refusingURL, State: kapselv1.DestinationState_DESTINATION_STATE_PAUSED,
	}, kapselv1.DeduplicationSource_DEDUPLICATION_SOURCE_NONE)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.queueBehind(way, bench.DefaultPayloadBytes, newProgress(io.Discard, "")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "webhook.json")
	if err := os.WriteFile(file, bench.Payload(bench.DefaultPayloadBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, text := runCaptured(t, "send", file, "--ingest-url", s.node.URL()+"/ingest/"+way.endpoint, "--secret", way.secret, "--event", "push"); code != 0 {
		t.Fatalf("send: %s", text)
	}
	if err := s.Queue(t.Context(), backlogBatch+1); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Queued(t.Context()); err != nil || n != backlogBatch+2 {
		t.Errorf("%d deliveries queued, %v: want %d", n, err, backlogBatch+2)
	}
	var deliveries, events, kinds, keys int
	err = s.asOwner(t.Context(), func(db *pgx.Conn) error {
		return db.QueryRow(t.Context(), `
			select count(distinct q.delivery_id), count(distinct e.event_id),
				count(distinct (q.tenant_id, q.endpoint_id, q.destination_id, q.attempts, q.lease_owner, q.lost_owner, q.replay_of,
					e.endpoint_id, length(e.body), e.content_type, e.event_type, e.dedup_key, e.source_address, e.verification, e.defect)),
				(select count(*) from dedup_keys)
			from delivery_queue q join events e using (tenant_id, event_id)`).Scan(&deliveries, &events, &kinds, &keys)
	})
	if err != nil {
		t.Fatal(err)
	}
	if deliveries != backlogBatch+2 || events != backlogBatch+2 || kinds != 1 || keys != 0 {
		t.Errorf("%d deliveries, %d events, %d kinds of rows, %d keys: want %d each of one kind, no keys", deliveries, events, kinds, keys, backlogBatch+2)
	}
}

func TestScenariosRunOnAServerOfTheirOwn(t *testing.T) {
	for _, test := range []struct {
		args string
		keys []string // of positive numbers
	}{
		{"--scenario noisy --backlog 2000 --rate 100", []string{"healthy_p99_ms", "healthy_p99_with_dead_ms", "ratio", "db_connections"}},
		{"--scenario ordered --rate 100 --keys 20", []string{"ordered_per_s", "unordered_per_s", "ratio", "ordered_p99_ms", "keys", "db_connections"}},
		{"--scenario inflight --rate 100", []string{"delivered_per_s", "peak_in_flight", "db_connections"}},
		{"--scenario listen", []string{"db_connections"}},
	} {
		var out bytes.Buffer
		root := newRoot()
		root.SetOut(&out)
		root.SetErr(io.Discard)
		root.SetArgs(append([]string{"bench", "--json", "--duration", "1s", "--warmup", "0s"}, strings.Fields(test.args)...))
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Errorf("%s: %v", test.args, err)
			continue
		}
		var result map[string]any
		if err := json.Unmarshal(out.Bytes(), &result); err != nil {
			t.Errorf("%s: %v in %s", test.args, err, out.String())
			continue
		}
		for _, key := range test.keys {
			if n, ok := result[key].(float64); !ok || n <= 0 {
				t.Errorf("%s: %s is %v", test.args, key, result[key])
			}
		}
		if result["lost"] != 0.0 {
			t.Errorf("%s: lost %v", test.args, result["lost"])
		}
	}
}

// What the log scenario reports is measured: proofs verify, seals are whole, every watcher has every head.
func TestBenchMeasuresTheLog(t *testing.T) {
	flags := benchFlags{scenario: scenarioLog, leaves: 70_000, unsealed: 5000, line: newProgress(io.Discard, "")}
	report, err := flags.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := report.(bench.LogResult)
	for name, value := range map[string]float64{
		"seal": got.Seal10k, "publish": got.Publish, "p50": got.InclusionP50, "p99": got.InclusionP99, "by hash": got.ByHashP99,
		"consistency": got.ConsistP99, "verify": got.Verify, "watchers": got.WatchersLagP99, "catch-up": got.CatchUp.Seconds,
	} {
		if value <= 0 {
			t.Errorf("%s: %v", name, value)
		}
	}
	if got.Watchers != benchWatchers || got.Err() != nil || got.Leaves != 70_000 || got.CatchUp.Leaves != 5000 {
		t.Errorf("got %+v", got)
	}
}
