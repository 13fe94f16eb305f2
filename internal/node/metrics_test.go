package node

import (
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/telemetry"
)

// exposition is what Prometheus gets of a node: values by name and labels as they stand at /metrics, and whether it answers.
type exposition map[string]float64

var sample = regexp.MustCompile(`(?m)^([a-zA-Z_:][a-zA-Z0-9_:]*(?:\{[^\n]*\})?) (\S+)$`)

func scrape(t testing.TB, n *Node) exposition {
	t.Helper()
	e := exposition{"up": 1} // as Prometheus notes
	for _, found := range sample.FindAllStringSubmatch(metrics(t, n), -1) {
		var err error
		if e[found[1]], err = strconv.ParseFloat(found[2], 64); err != nil {
			t.Errorf("%s: %v", found[0], err)
		}
	}
	return e
}

// metrics is the text that a node shows.
func metrics(t testing.TB, n *Node) string {
	t.Helper()
	response, err := http.Get(n.AdminURL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("/metrics: %s %v\n%s", response.Status, err, text)
	}
	return string(text)
}

// sum adds up the series of a name whose labels hold all of some texts.
func (e exposition) sum(name string, labels ...string) (sum float64) {
	for series, value := range e {
		if found, rest, _ := strings.Cut(series, "{"); found == name && containsAll(rest, labels) {
			sum += value
		}
	}
	return sum
}

func containsAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

func withAdmin(c *Config) { c.AdminListen = "127.0.0.1:0" }

// Names, units and help as Prometheus' own linter wants them.
func TestMetricsKeepToPrometheusConventions(t *testing.T) {
	program, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: apt-get install prometheus")
	}
	r, n := one(t, withAdmin)
	if status, _ := r.post(n, "first", []byte(`{}`)); status != http.StatusAccepted {
		t.Fatalf("status %d", status)
	}
	check := exec.CommandContext(t.Context(), program, "check", "metrics")
	check.Stdin = strings.NewReader(metrics(t, n))
	if output, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, output)
	}
}

func TestOneWebhookIsCountedOnItsWholeWay(t *testing.T) {
	r, n := one(t, withAdmin)
	if status, _ := r.post(n, "first", []byte(`{}`)); status != http.StatusAccepted {
		t.Fatalf("status %d", status)
	}
	if status, _ := r.post(n, "first", []byte(`{}`)); status != http.StatusAccepted {
		t.Fatalf("status %d", status)
	}
	want := map[string]float64{
		`kapsel_ingest_requests_total{code="202",reason=""}`:                  2,
		`kapsel_ingest_duration_seconds_count{class="2xx"}`:                   2,
		`kapsel_ingest_events_total{state="accepted"}`:                        1,
		`kapsel_ingest_events_total{state="duplicate"}`:                       1,
		`kapsel_delivery_attempts_total{failure="",outcome="succeeded"}`:      1,
		`kapsel_delivery_attempt_duration_seconds_count{outcome="succeeded"}`: 1,
		`kapsel_delivery_first_attempt_delay_seconds_count`:                   1,
		`kapsel_delivery_ended_total{result="delivered",retried="no"}`:        1,
		`kapsel_delivery_breakers{state="closed"}`:                            1,
		`kapsel_recorder_leaves_total`:                                        1,
		`kapsel_sealer_sealed_leaves_total`:                                   1,
		`kapsel_sealer_seal_duration_seconds_count`:                           1,
		`kapsel_log_tree_size`:                                                1,
		`kapsel_log_recorded_leaves`:                                          1,
		`kapsel_log_oldest_unsealed_leaf_seconds`:                             0,
		`kapsel_queue_oldest_due_seconds`:                                     0,
		`kapsel_database_up`:                                                  1,
		`kapsel_partitions_ready`:                                             8,
		`kapsel_nodes_alive`:                                                  1,
		`kapsel_pool_max_connections{pool="engine"}`:                          12,
		`kapsel_component_failures_total{cause="panic",component="sealer"}`:   0,
		`kapsel_component_ended_total{component="sealer"}`:                    0,
		`kapsel_ingest_requests_total{code="503",reason="store_unavailable"}`: 0,
		`kapsel_delivery_held_deliveries`:                                     0,
	}
	var missing map[string]float64
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		shown := scrape(t, n)
		missing = make(map[string]float64)
		for series, value := range want {
			if got, found := shown[series]; !found || got != value {
				missing[series] = got
			}
		}
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not shown as wanted: %v", missing)
		}
	}
}

func TestLogLevelsChangeAtTheAdminListener(t *testing.T) {
	said := new(logs)
	levels := telemetry.NewLevels(slog.LevelInfo)
	r, n := one(t, func(c *Config) {
		withAdmin(c)
		c.LogLevels, c.Logger = levels, telemetry.NewJSON(said, levels)
	})
	r.load(1, 0, func(int) *Node { return n })
	if said.count(`"stored"`) != 0 {
		t.Error("a webhook is written about at level info")
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, n.AdminURL()+"/loglevel", strings.NewReader(`{"component":"ingest","level":"debug"}`))
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Fatalf("PUT /loglevel: %s", response.Status)
	}
	r.load(1, 0, func(int) *Node { return n })
	eventually(t, "intake writes about the webhook, with its correlation id", func() bool {
		return said.count(`"msg":"stored","component":"ingest","event_id":"evt_`) == 1 && said.count(`"correlation_id":"evt_`) == 1
	})
}
