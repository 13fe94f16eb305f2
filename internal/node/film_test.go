package node

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// film is what a node showed before a cause, at its end, and after it.
type film struct{ before, during, after exposition }

// pace is how a film is played back in Prometheus' time: a sample each step, how many of them each part lasts, and how often
// rules are evaluated. What a node showed in seconds lasts minutes or hours, since alerts look at windows and wait.
type pace struct {
	step, evaluation      time.Duration
	before, during, after int
}

// at is the time of a sample.
func (p pace) at(sample int) time.Duration { return time.Duration(sample) * p.step }

// gone is what Prometheus notes of a node that does not answer its scrape.
var gone = exposition{"up": 0}

// played are the series of a film.
func (f film) played(p pace) string {
	names := make(map[string]bool)
	for _, shot := range []exposition{f.before, f.during, f.after} {
		for name := range shot {
			if name == "up" || strings.HasPrefix(name, "kapsel_") {
				names[name] = true
			}
		}
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(names)) {
		labels := strings.Replace(name, "{", `{instance="a",job="kapsel",`, 1)
		if !strings.Contains(name, "{") {
			labels += `{instance="a",job="kapsel"}`
		}
		metric, _, _ := strings.Cut(name, "{")
		counts := strings.HasSuffix(metric, "_total") || strings.HasSuffix(metric, "_count") || strings.HasSuffix(metric, "_bucket")
		fmt.Fprintf(&b, "      - {series: '%s', values: '%s %s %s'}\n", labels,
			values(f.before, f.before, name, p.before, false), values(f.before, f.during, name, p.during, counts), values(f.during, f.after, name, p.after, false))
	}
	return b.String()
}

// values are n samples that lead to what the second shot shows: step by step for what is counted, at once otherwise. A series
// that is not shown any more ends there, as it does for Prometheus.
func values(from, to exposition, name string, n int, steps bool) string {
	first, before := from[name]
	last, shown := to[name]
	switch {
	case !shown && before:
		return "stale _x" + strconv.Itoa(n-1)
	case !shown:
		return "_x" + strconv.Itoa(n)
	case !steps:
		first = last
	}
	step := (last - first) / float64(n) // a count that was not there was 0
	text := make([]string, n)
	for i := range text {
		text[i] = strconv.FormatFloat(first+step*float64(i+1), 'f', -1, 64)
	}
	return strings.Join(text, " ")
}

// fires checks that the alerts are silent before a cause that lasts so many minutes, fire at its end, and are silent again an
// hour after it.
func (f film) fires(t *testing.T, minutes int, alerts ...string) {
	t.Helper()
	f.plays(t, pace{time.Minute, 30 * time.Second, 10, minutes, 60}, alerts)
}

// burns is fires for alerts that look at a day: the cause lasts 12 hours, and three hours after it they are silent. A step is
// less than the five minutes after which a sample is stale.
func (f film) burns(t *testing.T, alerts ...string) {
	t.Helper()
	f.plays(t, pace{4 * time.Minute, 4 * time.Minute, 15, 180, 45}, alerts)
}

// plays has Prometheus' own evaluator run the rules over the film.
func (f film) plays(t *testing.T, p pace, alerts []string) {
	t.Helper()
	dir := t.TempDir()
	rules := func(name string) string {
		path, err := filepath.Abs(filepath.Join(prometheusDir, name))
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	var b strings.Builder
	fmt.Fprintf(&b, "rule_files: [%q, %q]\nevaluation_interval: %s\ngroup_eval_order: [kapsel-service-levels]\ntests:\n  - interval: %s\n    input_series:\n%s    promql_expr_test:\n",
		rules("kapsel-recording.yml"), rules("kapsel-alerts.yml"), p.evaluation, p.step, f.played(p))
	for _, alert := range alerts {
		for at, firing := range map[time.Duration]int{p.at(p.before - 1): 0, p.at(p.before + p.during - 1): 1, p.at(p.before + p.during + p.after - 2): 0} {
			fmt.Fprintf(&b, "      - {expr: 'clamp_max(count(ALERTS{alertname=\"%s\",alertstate=\"firing\"}), 1) or vector(0)', eval_time: %s, exp_samples: [{labels: '{}', value: %d}]}\n",
				alert, at, firing)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "film.test.yml"), []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, dir, "test", "rules", "film.test.yml")
}

// shot waits until the node shows something, and returns all that it shows then.
func shot(t testing.TB, n *Node, what string, shows func(exposition) bool) (e exposition) {
	t.Helper()
	eventually(t, what, func() bool {
		e = scrape(t, n)
		return shows(e)
	})
	return e
}

// filmed runs a node and films a cause: what makes it, how it shows, what ends it, and how that shows.
func filmed(t *testing.T, n *Node, make func(), shows func(exposition) bool, end func(), ended func(exposition) bool) film {
	t.Helper()
	var f film
	f.before = shot(t, n, "the node is well", probed)
	make()
	f.during = shot(t, n, "the cause shows", shows)
	end()
	f.after = shot(t, n, "its end shows", ended)
	return f
}

func probed(e exposition) bool { return e["kapsel_database_up"] == 1 }

func always(exposition) bool { return true }

// silent checks that a node does not answer its scrape, and returns what Prometheus notes then.
func silent(t *testing.T, n *Node) exposition {
	t.Helper()
	if response, err := http.Get(n.AdminURL() + "/metrics"); err == nil {
		response.Body.Close()
		t.Errorf("a node that is gone answers its scrape: %s", response.Status)
	}
	return gone
}

// TestEachAlertHasItsRealCause fails for an alert that no test of this package films.
func TestEachAlertHasItsRealCause(t *testing.T) {
	filmed := make(map[string]bool)
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok {
				return true
			}
			if method, ok := call.Fun.(*ast.SelectorExpr); ok && (method.Sel.Name == "fires" || method.Sel.Name == "burns") {
				for _, argument := range call.Args {
					if literal, ok := argument.(*ast.BasicLit); ok && literal.Kind == token.STRING {
						alert, _ := strconv.Unquote(literal.Value)
						filmed[alert] = true
					}
				}
			}
			return true
		})
	}
	names := alerts(t)
	for _, name := range names {
		if !filmed[name] {
			t.Errorf("%s: no test makes its cause on a real node and sees it fire and clear: film one in alerts_test.go", name)
		}
	}
	for name := range filmed {
		if !slices.Contains(names, name) {
			t.Errorf("%s is filmed, and no alert", name)
		}
	}
}
