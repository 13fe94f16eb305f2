package node

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/id"
	"github.com/kapsel-dev/kapsel/internal/route"
	"github.com/kapsel-dev/kapsel/internal/secret"
)

const (
	prometheusDir = "../../deploy/prometheus"
	dashboardFile = "../../deploy/grafana/kapsel.json"
)

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// promtool runs Prometheus' own checker in deploy/prometheus, or in another directory.
func promtool(t testing.TB, dir string, arguments ...string) {
	t.Helper()
	program, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed: apt-get install prometheus")
	}
	command := exec.CommandContext(t.Context(), program, arguments...)
	command.Dir = dir
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("promtool %s: %v\n%s", strings.Join(arguments, " "), err, output)
	}
}

func TestRulesAreAcceptedByPrometheus(t *testing.T) {
	promtool(t, prometheusDir, "check", "config", "prometheus.yml")
	promtool(t, prometheusDir, "check", "rules", "--lint=all", "--lint-fatal", "kapsel-recording.yml", "kapsel-alerts.yml")
}

func TestEachAlertFiresAndClears(t *testing.T) {
	promtool(t, prometheusDir, "test", "rules", "kapsel-alerts.test.yml", "kapsel-burn.test.yml")
}

var alertName = regexp.MustCompile(`(?m)^      - alert: (\w+)$`)

// alerts are the names of all alerts.
func alerts(t testing.TB) (names []string) {
	for _, found := range alertName.FindAllStringSubmatch(read(t, filepath.Join(prometheusDir, "kapsel-alerts.yml")), -1) {
		names = append(names, found[1])
	}
	if len(names) < 20 {
		t.Fatalf("%d alerts found: is the file written otherwise?", len(names))
	}
	return names
}

func TestEachAlertHasATestAndASection(t *testing.T) {
	rules := read(t, filepath.Join(prometheusDir, "kapsel-alerts.yml"))
	tests := read(t, filepath.Join(prometheusDir, "kapsel-alerts.test.yml")) + read(t, filepath.Join(prometheusDir, "kapsel-burn.test.yml"))
	page := read(t, "../../docs/alerts.md")
	names := alerts(t)
	for _, name := range names {
		if strings.Count(tests, "alertname: "+name+"\n") != 1 || !strings.Contains(tests, "{alertname: "+name+",") {
			t.Errorf("%s: want a test in which it fires, and clears", name)
		}
		if !strings.Contains(rules, "/docs/alerts.md#"+strings.ToLower(name)+"\n") {
			t.Errorf("%s: want an annotation runbook_url with its section", name)
		}
		_, section, found := strings.Cut(page, "\n### "+name+"\n")
		section, _, _ = strings.Cut(section, "\n#")
		if !found || !strings.Contains(section, "Means:") || !containsAll(strings.ToLower(section), []string{"check", "cure"}) {
			t.Errorf("%s: want a section in docs/alerts.md with Means, Check and Cure", name)
		}
	}
	for _, heading := range regexp.MustCompile(`(?m)^### (\w+)$`).FindAllStringSubmatch(page, -1) {
		if !slices.Contains(names, heading[1]) {
			t.Errorf("docs/alerts.md has a section of %s, which is no alert", heading[1])
		}
	}
}

// used is what a PromQL expression names: metrics, each with the labels that it is asked by ("name" or "name=value").
type used map[string][]string

var (
	promString   = regexp.MustCompile(`"[^"]*"`)
	promSelector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{([^}]*)\}`)
	promMatcher  = regexp.MustCompile(`([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
	promGrouping = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	promRange    = regexp.MustCompile(`\[[^\]]*\]`)
	promName     = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*\s*\(?`)
	promKeywords = []string{"and", "or", "unless", "bool", "offset", "inf", "nan", "e6", "e"}
)

func (u used) add(expression string) {
	groupings := promGrouping.FindAllStringSubmatch(expression, -1)
	for _, selector := range promSelector.FindAllStringSubmatch(expression, -1) {
		for _, matcher := range promMatcher.FindAllStringSubmatch(selector[2], -1) {
			label := matcher[1]
			if matcher[2] == "=" {
				label += "=" + matcher[3]
			}
			u[selector[1]] = append(u[selector[1]], label)
		}
	}
	bare := promGrouping.ReplaceAllString(expression, "")
	bare = promSelector.ReplaceAllString(bare, "$1 ")
	bare = promRange.ReplaceAllString(promString.ReplaceAllString(bare, ""), " ")
	for _, name := range promName.FindAllString(bare, -1) {
		name = strings.TrimRight(name, " \n")
		if strings.HasSuffix(name, "(") || slices.Contains(promKeywords, strings.ToLower(name)) {
			continue
		}
		for _, grouping := range groupings {
			if grouping[1] == "by" && len(groupings) == 1 { // of one metric, or of the same labels
				for _, label := range strings.Split(grouping[2], ",") {
					u[name] = append(u[name], strings.TrimSpace(label))
				}
			}
		}
		u[name] = append(u[name], "")
	}
}

// allUsed is what rules and dashboard name. records are the names that rules record.
func allUsed(t testing.TB) (all used, records []string) {
	all = make(used)
	expression := regexp.MustCompile(`(?m)^ +expr: (?:\|\n((?: {10,}.*\n)+)|(.*)\n)`)
	for _, file := range []string{"kapsel-recording.yml", "kapsel-alerts.yml"} {
		text := read(t, filepath.Join(prometheusDir, file))
		found := expression.FindAllStringSubmatch(text, -1)
		if len(found) != strings.Count(text, "expr:") {
			t.Fatalf("%s: %d expressions understood of %d", file, len(found), strings.Count(text, "expr:"))
		}
		for _, parts := range found {
			all.add(parts[1] + parts[2])
		}
		for _, parts := range regexp.MustCompile(`(?m)^ +- record: (\S+)$`).FindAllStringSubmatch(text, -1) {
			records = append(records, parts[1])
		}
	}
	var dashboard struct {
		Panels []struct {
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, dashboardFile)), &dashboard); err != nil {
		t.Fatal(err)
	}
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			all.add(target.Expr)
		}
	}
	return all, records
}

// missing are the metrics and labels that neither a node shows, nor a rule records, nor Prometheus adds.
func (u used) missing(shown exposition, records []string) (missing []string) {
	for _, name := range slices.Sorted(maps.Keys(u)) {
		if name == "up" || slices.Contains(records, name) {
			continue
		}
		if !shown.has(name) {
			missing = append(missing, name)
			continue
		}
		for _, label := range u[name] {
			key, value, exact := strings.Cut(label, "=")
			pattern := key + `="`
			if exact {
				pattern += value + `"`
			}
			if key != "" && key != "job" && key != "instance" && !shown.has(name, pattern) {
				missing = append(missing, name+"{"+label+"}")
			}
		}
	}
	return missing
}

func (e exposition) has(name string, labels ...string) bool {
	for series := range e {
		if found, rest, _ := strings.Cut(series, "{"); found == name && containsAll(rest, labels) {
			return true
		}
	}
	return false
}

func TestRulesAndDashboardNameOnlyWhatANodeShows(t *testing.T) {
	all, records := allUsed(t)
	if len(all) < 40 {
		t.Fatalf("only %d metrics found in rules and dashboard", len(all))
	}
	r := newRig(t)
	config := r.config()
	withAdmin(&config)
	r.witnessed(&config)
	n := r.start(config)
	r.configure(10 * time.Second)
	r.refresh(n)
	r.postUnproved(r.signedEndpoint(n))
	r.post(n, "one", []byte(`{}`))
	eventually(t, "a head covers it", func() bool {
		head, known := n.heads.Latest()
		return known && head.Size > 0
	})
	call(t, n, "GetConsistencyProof", `{"logId":"1","fromSize":"1"}`)
	var missing []string
	for range 50 { // what the probe knows comes soon
		if missing = all.missing(scrape(t, n), records); len(missing) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if len(missing) > 0 {
		t.Errorf("no node shows: %s", strings.Join(missing, ", "))
	}
	wrong := make(used)
	wrong.add(`sum by (colour) (rate(kapsel_ingest_requests_total{code="202"}[5m])) / kapsel_ingest_webhooks`)
	wrong.add(`kapsel_ingest_requests_total{code="999"}`)
	if got := wrong.missing(scrape(t, n), records); len(got) != 3 {
		t.Errorf("a wrong metric, a wrong label and a wrong value: found %v", got)
	}
}

// signedEndpoint makes an endpoint that wants GitHub's signature, and returns its path.
func (r *rig) signedEndpoint(n *Node) string {
	r.t.Helper()
	endpoint, secretID := id.New(), id.New()
	ciphertext, err := n.Keyring().Seal(secret.New([]byte("It's a Secret to Everybody")), secret.AssociatedData(r.tenant, secretID, route.EndpointSecretPurpose))
	if err != nil {
		r.t.Fatal(err)
	}
	r.exec(`insert into endpoints (tenant_id, endpoint_id, display_name, verification, payload_format, max_body_bytes,
		deduplication, event_type_source) values ($1, $2, '', '{"preset":"github"}', 'any', 1048576, '{}', '{}')`, r.tenant, endpoint)
	r.exec(`insert into endpoint_secrets (tenant_id, endpoint_id, secret_id, ciphertext) values ($1, $2, $3, $4)`, r.tenant, endpoint, secretID, ciphertext)
	r.refresh(n)
	return n.URL() + "/ingest/" + id.Endpoint.Text(endpoint)
}

// postUnproved posts a webhook without its signature.
func (r *rig) postUnproved(path string) {
	r.t.Helper()
	response, err := client.Post(path, "application/json", strings.NewReader("{}"))
	if err != nil {
		r.t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		r.t.Fatalf("without a signature: %s", response.Status)
	}
}

// call calls AttestationService.
func call(t testing.TB, n *Node, method, request string) int {
	t.Helper()
	response, err := http.Post(n.URL()+"/kapsel.v1.AttestationService/"+method, "application/json", strings.NewReader(request))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	return response.StatusCode
}
