package chaos

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/witness"
)

// hastened is by how much time runs faster for Prometheus here than where it is operated.
const hastened = 20

// duration finds what haste changes: ranges, how long alerts wait, and how often Prometheus looks.
var duration = regexp.MustCompile(`(\[|\b(?:for|scrape_interval|evaluation_interval): )(\d+[smhd])(\]|\n)`)

// haste divides each duration of a Prometheus configuration, rule file or query. The names of what rules record stay.
func haste(text string) string {
	return duration.ReplaceAllStringFunc(text, func(found string) string {
		parts := duration.FindStringSubmatch(found)
		number, _ := strconv.Atoi(parts[2][:len(parts[2])-1])
		unit := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}[parts[2][len(parts[2])-1]]
		return fmt.Sprintf("%s%dms%s", parts[1], (time.Duration(number) * unit / hastened).Milliseconds(), parts[3])
	})
}

func TestHasteDividesDurationsAndNothingElse(t *testing.T) {
	for text, want := range map[string]string{
		"rate(x[5m]) > 0.01 * 5":           "rate(x[15000ms]) > 0.01 * 5",
		"- record: kapsel:x:ratio_rate5m":  "- record: kapsel:x:ratio_rate5m",
		"        for: 0m\n":                "        for: 0ms\n",
		"        for: 1m\n":                "        for: 3000ms\n",
		"  scrape_interval: 15s\n":         "  scrape_interval: 750ms\n",
		"kapsel:x:ratio_rate1d + y[1d]":    "kapsel:x:ratio_rate1d + y[4320000ms]",
		"summary: gone in 2h\n":            "summary: gone in 2h\n",
		`"up{job=~"[a-z5m]+"} and z[1h]\n`: `"up{job=~"[a-z5m]+"} and z[180000ms]\n`,
	} {
		if got := haste(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
	for _, name := range []string{"prometheus.yml", "kapsel-recording.yml", "kapsel-alerts.yml"} {
		text := shipped(t, "prometheus/"+name)
		written := strings.Count(text, "[") - strings.Count(text, `targets: [`) + strings.Count(text, " for: ") + strings.Count(text, "_interval: ")
		if found := len(duration.FindAllString(text, -1)); found != written {
			t.Errorf("%s: %d durations found of %d", name, found, written)
		}
	}
}

// shipped reads a file of deploy/.
func shipped(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// prometheus is the real one, running.
type prometheus struct{ url string }

// startPrometheus runs it with the configuration and the rules of deploy/, hastened, over the nodes' admin listeners.
func startPrometheus(t *testing.T, r *Random, admins ...string) prometheus {
	t.Helper()
	program, err := exec.LookPath("prometheus")
	if err != nil {
		t.Skip("prometheus is not installed: apt-get install prometheus")
	}
	dir, address := t.TempDir(), FreeAddress(t, r)
	for _, name := range []string{"prometheus.yml", "kapsel-recording.yml", "kapsel-alerts.yml"} {
		text := haste(shipped(t, "prometheus/"+name))
		for i, admin := range admins {
			text = strings.ReplaceAll(text, fmt.Sprintf("node-%c:9464", 'a'+i), admin)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var said tail
	cmd := exec.Command(program, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &said, &said, endWithParent()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Logf("the end of what Prometheus wrote:\n%s", said.text())
		}
	})
	p := prometheus{url: "http://" + address}
	awaitThat(t, "Prometheus is ready", func() string {
		response, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return err.Error()
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return response.Status
		}
		return ""
	})
	return p
}

// get asks Prometheus' API. It fails the test for an error that Prometheus answers, such as that of a query.
func (p prometheus) get(t *testing.T, path string, query url.Values, data any) {
	t.Helper()
	response, err := http.Get(p.url + "/api/v1/" + path + "?" + query.Encode())
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s %v: %s: %s %v", path, query, response.Status, text, err)
	}
}

// hasData reports whether a query gives a number now.
func (p prometheus) hasData(t *testing.T, query string) bool {
	t.Helper()
	var data struct {
		Result []struct{ Value [2]any }
	}
	p.get(t, "query", url.Values{"query": {query}}, &data)
	return slices.ContainsFunc(data.Result, func(sample struct{ Value [2]any }) bool {
		text, _ := sample.Value[1].(string)
		value, err := strconv.ParseFloat(text, 64)
		return err == nil && !math.IsNaN(value)
	})
}

// down tells which targets are not up, or that there are not so many.
func (p prometheus) down(t *testing.T, targets int) string {
	t.Helper()
	var data struct {
		ActiveTargets []struct{ ScrapeURL, Health, LastError string }
	}
	p.get(t, "targets", nil, &data)
	for _, target := range data.ActiveTargets {
		if target.Health != "up" {
			return fmt.Sprintf("%s: %s %s", target.ScrapeURL, target.Health, target.LastError)
		}
	}
	if len(data.ActiveTargets) != targets {
		return fmt.Sprintf("%d targets", len(data.ActiveTargets))
	}
	return ""
}

// unhealthy tells which rules were not evaluated, or not without an error.
func (p prometheus) unhealthy(t *testing.T) string {
	t.Helper()
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	p.get(t, "rules", nil, &data)
	rules := 0
	for _, group := range data.Groups {
		for _, rule := range group.Rules {
			if rules++; rule.Health != "ok" || rule.LastError != "" {
				return fmt.Sprintf("%s: %s %s", rule.Name, rule.Health, rule.LastError)
			}
		}
	}
	written := shipped(t, "prometheus/kapsel-recording.yml") + shipped(t, "prometheus/kapsel-alerts.yml")
	if want := strings.Count(written, "- record: ") + strings.Count(written, "- alert: "); rules != want {
		return fmt.Sprintf("%d rules of %d", rules, want)
	}
	return ""
}

// firing are the instances that an alert fires for.
func (p prometheus) firing(t *testing.T, alert string) (instances []string) {
	t.Helper()
	var data struct {
		Alerts []struct {
			Labels map[string]string
			State  string
		}
	}
	p.get(t, "alerts", nil, &data)
	for _, a := range data.Alerts {
		if a.Labels["alertname"] == alert && a.State == "firing" {
			instances = append(instances, a.Labels["instance"])
		}
	}
	return instances
}

// awaitThat waits until nothing is missing.
func awaitThat(t *testing.T, what string, missing func() string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		why := missing()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s: %s", what, why)
		}
	}
}

// queries are those of the dashboard, by panel, and what rules record.
func queries(t *testing.T) map[string]string {
	t.Helper()
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ RefID, Expr string }
		}
	}
	if err := json.Unmarshal([]byte(shipped(t, "grafana/kapsel.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			found[panel.Title+" "+target.RefID] = haste(target.Expr)
		}
	}
	for _, record := range regexp.MustCompile(`- record: (\S+)`).FindAllStringSubmatch(shipped(t, "prometheus/kapsel-recording.yml"), -1) {
		found[record[1]] = record[1]
	}
	if len(found) < 60 {
		t.Fatalf("only %d queries found", len(found))
	}
	return found
}

// witnessed makes the log's key in the state directory of the first node, and a witness for it. It returns the nodes' flags.
func witnessed(t *testing.T, c *Cluster, first string) (flags []string) {
	t.Helper()
	const origin = "log.example.com/log/1"
	dir := filepath.Join(c.state, first)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	verifierKey := func(path string) (*tlog.Key, string) {
		key, err := tlog.OpenKeyFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := key.VerifierKey(origin)
		if err != nil {
			t.Fatal(err)
		}
		return key, text
	}
	_, logKey := verifierKey(filepath.Join(dir, keyFiles[0]))
	key, _ := verifierKey(filepath.Join(t.TempDir(), "witness.key"))
	server, err := witness.NewServer(witness.ServerConfig{Name: "witness.example.com", Signer: key.Signer(), Logs: []string{logKey}, StateDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	listener := httptest.NewServer(server)
	t.Cleanup(listener.Close)
	text, err := server.VerifierKey()
	if err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(t.TempDir(), "policy")
	if err := os.WriteFile(policy, fmt.Appendf(nil, "witness one %s %s\nquorum one\n", text, listener.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--log-origin", origin, "--witness-policy", policy, "--witness-mode", "warn"}
}

// Prometheus itself scrapes two nodes by the configuration that is shipped: its rules and all queries of the dashboard have data, it
// tells that a node was killed, and that it is back.
func TestPrometheusWatchesNodes(t *testing.T) {
	ctx, r := scenario(t)
	cluster := NewCluster(t, r)
	adminA, adminB := FreeAddress(t, r), FreeAddress(t, r)
	cluster.flags = witnessed(t, cluster, "a")
	a := cluster.start(t, "a", keyFiles, "--admin-listen", adminA)
	b := cluster.start(t, "b", keyFiles, "--admin-listen", adminB)
	watcher := startPrometheus(t, r, adminA, adminB)
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); strings.Contains(string(body), "retry") && r.Header.Get("Kapsel-Attempt") == "1" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(sink.Close)
	route := a.API().CreateRouteWith(t, sink.URL, object{"retryPolicy": object{"schedule": []string{"0.01s"}}})
	webhooks := 0
	post := func(secret, body string) {
		t.Helper()
		webhooks++
		if _, answer, err := Post(ctx, http.DefaultClient, a.IngestURL(route), secret, fmt.Sprint("webhook-", webhooks), "push", []byte(body)); err != nil {
			t.Fatalf("%v %s", err, answer)
		}
	}
	traffic := func() {
		for range 5 {
			post(route.Secret, `{}`)
		}
		post(route.Secret, `{"please":"retry"}`)
		post("forged", `{}`)
		a.API().TryCall(t, "AttestationService/GetConsistencyProof", object{"logId": "1", "fromSize": "1"})
		a.Log(t).Checkpoint(t)
	}

	awaitThat(t, "both nodes are scraped", func() string { return watcher.down(t, 2) })
	wanted := queries(t)
	awaitThat(t, "each query has data", func() string {
		traffic()
		maps.DeleteFunc(wanted, func(_, query string) bool { return watcher.hasData(t, query) })
		return strings.Join(slices.Sorted(maps.Keys(wanted)), ", ")
	})
	awaitThat(t, "each rule is evaluated", func() string { return watcher.unhealthy(t) })
	over := func() string { return strings.Join(watcher.firing(t, "KapselDown"), " ") }
	awaitThat(t, "KapselDown is silent", over)

	b.Kill()
	awaitThat(t, "KapselDown fires for the node that was killed", func() string {
		if down := watcher.firing(t, "KapselDown"); !slices.Contains(down, adminB) {
			return fmt.Sprint(down)
		}
		return ""
	})
	b.Restart(t)
	awaitThat(t, "KapselDown is over", over)
	awaitThat(t, "both nodes are scraped again", func() string { return watcher.down(t, 2) })
	if wrong := watcher.unhealthy(t); wrong != "" {
		t.Error(wrong)
	}
}
