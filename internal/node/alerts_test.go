package node

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
)

// film is what a node showed before a cause, at its end, and after it.
type film struct{ before, during, after exposition }

// played plays a film back in Prometheus' time: what the node showed in seconds lasts minutes, since alerts look at windows
// and wait. Before is 10 minutes, the cause lasts so many, after is an hour.
func (f film) played(minutes int) string {
	series := make(map[string]bool)
	for _, shot := range []exposition{f.before, f.during, f.after} {
		for name := range shot {
			series[name] = series[name] || strings.HasPrefix(name, "kapsel_")
		}
	}
	var b strings.Builder
	for name, ours := range series {
		if !ours {
			continue
		}
		labels := strings.Replace(name, "{", `{instance="a",job="kapsel",`, 1)
		if !strings.Contains(name, "{") {
			labels += `{instance="a",job="kapsel"}`
		}
		metric, _, _ := strings.Cut(name, "{")
		counts := strings.HasSuffix(metric, "_total") || strings.HasSuffix(metric, "_count") || strings.HasSuffix(metric, "_bucket")
		fmt.Fprintf(&b, "      - {series: '%s', values: '%s %s %s'}\n", labels,
			values(f.before, f.before, name, 10, false), values(f.before, f.during, name, minutes, counts), values(f.during, f.after, name, 60, false))
	}
	return b.String()
}

// values are n samples that lead to what the second shot shows: step by step for what is counted, at once otherwise.
func values(from, to exposition, name string, n int, steps bool) string {
	last, shown := to[name]
	if !shown {
		return "_x" + strconv.Itoa(n)
	}
	first := last
	if steps {
		first = from[name] // a count that was not there was 0
	}
	step := 0.0
	if steps {
		step = (last - first) / float64(n)
	}
	text := make([]string, n)
	for i := range text {
		text[i] = strconv.FormatFloat(first+step*float64(i+1), 'f', -1, 64)
	}
	return strings.Join(text, " ")
}

// fires checks that the alerts are silent before the cause, fire at its end, and are silent again an hour after it.
func (f film) fires(t *testing.T, minutes int, alerts ...string) {
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
	fmt.Fprintf(&b, "rule_files: [%q, %q]\nevaluation_interval: 30s\ngroup_eval_order: [kapsel-service-levels]\ntests:\n  - interval: 1m\n    input_series:\n%s    promql_expr_test:\n",
		rules("kapsel-recording.yml"), rules("kapsel-alerts.yml"), f.played(minutes))
	for _, alert := range alerts {
		for at, firing := range map[int]int{9: 0, 10 + minutes - 1: 1, 10 + minutes + 58: 0} {
			fmt.Fprintf(&b, "      - {expr: 'clamp_max(count(ALERTS{alertname=\"%s\",alertstate=\"firing\"}), 1) or vector(0)', eval_time: %dm, exp_samples: [{labels: '{}', value: %d}]}\n",
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

func probed(e exposition) bool { return e["kapsel_database_up"] == 1 }

func TestDatabaseThatIsAwayRaisesItsAlerts(t *testing.T) {
	r := newRig(t)
	proxy := pgtest.NewProxy(t, r.url)
	config := r.config()
	config.DatabaseURL, config.Hold, config.AdminListen = proxy.URL, 50*time.Millisecond, "127.0.0.1:0"
	n := r.start(config)
	r.configure(10 * time.Second)
	r.refresh(n)
	release := r.sink.hang(t)
	r.load(20, 0, func(int) *Node { return n })
	eventually(t, "all are in flight", func() bool { return r.sink.requests() == 20 })
	call(t, n, "GetTreeHead", `{"logId":"1"}`)
	var f film
	f.before = shot(t, n, "the database is there", probed)

	proxy.Away.Store(true)
	proxy.Cut()
	release() // results that nobody can record
	for range 5 {
		if status, _ := r.post(n, "refused", nil); status != http.StatusServiceUnavailable {
			t.Errorf("without a database: status %d", status)
		}
		if status := call(t, n, "GetTreeHead", `{"logId":"1"}`); status != http.StatusServiceUnavailable {
			t.Errorf("a head without a database: status %d", status)
		}
	}
	f.during = shot(t, n, "the outage shows", func(e exposition) bool {
		return e["kapsel_database_up"] == 0 && e["kapsel_recorder_retries_total"] >= 5
	})
	proxy.Away.Store(false)
	f.after = shot(t, n, "the database is back, and all is recorded", func(e exposition) bool {
		return probed(e) && e["kapsel_recorder_leaves_total"] >= 20
	})
	f.fires(t, 5, "KapselDatabaseAway", "KapselIntakeUnavailable", "KapselIntakeBudgetFast", "KapselProofBudgetFast", "KapselResultsNotRecorded")
}

// filmed runs a node and films a cause: what makes it, how it shows, what ends it, and how that shows.
func filmed(t *testing.T, r *rig, n *Node, make func(), shows func(exposition) bool, end func(), ended func(exposition) bool) film {
	t.Helper()
	var f film
	f.before = shot(t, n, "the node is well", probed)
	make()
	f.during = shot(t, n, "the cause shows", shows)
	end()
	f.after = shot(t, n, "its end shows", ended)
	return f
}

func always(exposition) bool { return true }

func TestCausesRaiseTheirAlerts(t *testing.T) {
	r, n := one(t, func(c *Config) { withAdmin(c); c.BreakerPause = 50 * time.Millisecond })
	answer := func(status int) func() {
		return func() { r.sink.answers(func(*http.Request, string, int) int { return status }) }
	}
	open := func(e exposition) bool { return e[`kapsel_delivery_breakers{state="closed"}`] == 0 }
	closed := func(e exposition) bool { return e[`kapsel_delivery_breakers{state="closed"}`] == 1 }
	r.load(1, 0, func(int) *Node { return n })
	shot(t, n, "the destination works", closed)

	t.Run("a destination fails", func(t *testing.T) {
		f := filmed(t, r, n, func() {
			answer(http.StatusInternalServerError)()
			r.load(12, 0, func(int) *Node { return n })
		}, open, answer(http.StatusOK), closed)
		f.fires(t, 20, "KapselBreakersOpen")
	})
	t.Run("retries end in vain", func(t *testing.T) {
		r.exec(`update destinations set retry_policy = '{"schedule":["0s"],"maxAttempts":20,"fatalStatuses":[400],"jitter":0}'`)
		r.refresh(n)
		f := filmed(t, r, n, func() {
			r.sink.answers(func(_ *http.Request, _ string, seen int) int {
				if seen == 1 {
					return http.StatusTooManyRequests
				}
				return http.StatusBadRequest
			})
			r.load(30, 0, func(int) *Node { return n })
		}, func(e exposition) bool { return e[`kapsel_delivery_dead_letters_total{reason="fatal_status"}`] == 30 }, answer(http.StatusOK), always)
		f.fires(t, 20, "KapselDeadLetters", "KapselRetryBudgetFast")
	})
	t.Run("signatures are wrong", func(t *testing.T) {
		path := r.signedEndpoint(n)
		f := filmed(t, r, n, func() {
			for range 90 {
				r.postUnproved(path)
			}
		}, always, func() {}, always)
		f.fires(t, 10, "KapselSignatureFailures")
	})
	t.Run("commits are slow", func(t *testing.T) {
		enable(t, "ingest.before_commit=delay:1:20ms")
		slow := func(e exposition) float64 {
			return e[`kapsel_ingest_duration_seconds_count{class="2xx"}`] - e[`kapsel_ingest_duration_seconds_bucket{class="2xx",le="0.01"}`]
		}
		f := filmed(t, r, n, func() { r.load(20, 0, func(int) *Node { return n }) },
			func(e exposition) bool { return slow(e) >= 20 }, func() {}, always)
		f.fires(t, 10, "KapselAckBudgetFast")
	})
	t.Run("a tenant is over its limit", func(t *testing.T) {
		limit := func(webhooks any) {
			r.exec("update tenants set ingest_per_second = $1", webhooks)
			r.refresh(n)
		}
		f := filmed(t, r, n, func() {
			limit(1)
			for i := range 20 {
				r.post(n, fmt.Sprintf("too many %d", i), nil)
			}
		}, func(e exposition) bool { return e[`kapsel_limit_refusals_total{limit="per_second"}`] > 5 }, func() { limit(nil) }, always)
		f.fires(t, 40, "KapselLimitsHit")
	})
	t.Run("partitions are missing", func(t *testing.T) {
		f := filmed(t, r, n, func() {
			for day := 2; day < 8; day++ {
				r.exec("drop table events_" + time.Now().UTC().AddDate(0, 0, day).Format("20060102"))
			}
		}, func(e exposition) bool { return e["kapsel_partition_days"] < 3 }, func() {
			if _, err := n.db.MakePartitions(t.Context(), n.db.Engine(), partitionDaysAhead); err != nil {
				t.Error(err)
			}
		}, func(e exposition) bool { return e["kapsel_partition_days"] == 8 })
		f.fires(t, 8, "KapselPartitionsMissing")
	})
	t.Run("a node died in the middle of an attempt, and nobody claims", func(t *testing.T) {
		again(t, n, "claimer") // so that there is one to be removed
		f := filmed(t, r, n, func() {
			if err := n.remove("claimer")(within(t)); err != nil {
				t.Fatal(err)
			}
			event := id.New()
			r.exec(`insert into events (tenant_id, event_id, endpoint_id, received_at, body, headers, content_type, event_type, dedup_key, source_address, verification, defect)
				values ($1, $2, $3, now(), '', '', '', '', '', '', 'none', '')`, r.tenant, event, r.endpoint)
			r.exec(`insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at, lease_owner)
				select tenant_id, $1, $2, endpoint_id, destination_id, now() - interval '90 s', $3 from destinations`, id.New(), event, id.New())
		}, func(e exposition) bool {
			return e["kapsel_queue_oldest_due_seconds"] > 60 && e["kapsel_queue_estimated_deliveries"] >= 1
		}, func() {
			n.add("claimer", n.components["claimer"].run)
		}, func(e exposition) bool {
			return e["kapsel_queue_oldest_due_seconds"] == 0 && e[`kapsel_delivery_attempts_total{failure="worker_lost",outcome="unknown"}`] == 1
		})
		f.fires(t, 5, "KapselQueueOld")
		film{f.before, f.after, f.after}.fires(t, 5, "KapselAttemptsUnknown")
	})
	t.Run("a component panics", func(t *testing.T) {
		f := filmed(t, r, n, func() {
			n.failures.With("component", "shaky", "cause", "panic") // as add does
		}, always, func() {}, always)
		f.before = f.during
		n.add("shaky", func(context.Context) error {
			if n.components["shaky"].starts.Load() < 6 {
				panic("on purpose")
			}
			return nil
		})
		f.during = shot(t, n, "it has panicked", func(e exposition) bool {
			return e[`kapsel_component_failures_total{cause="panic",component="shaky"}`] == 5
		})
		f.after = f.during
		f.fires(t, 5, "KapselComponentFailing")
	})
	t.Run("statements wait for connections", func(t *testing.T) {
		var taken []*pgxpool.Conn
		free := func() {
			for _, conn := range taken {
				conn.Release()
			}
			taken = nil
		}
		defer free()
		f := filmed(t, r, n, func() {
			for range n.db.Engine().Config().MaxConns {
				conn, err := n.db.Engine().Acquire(within(t))
				if err != nil {
					t.Fatal(err)
				}
				taken = append(taken, conn)
			}
			time.Sleep(2 * time.Second)
			free()
		}, func(e exposition) bool { return e.sum("kapsel_pool_acquire_wait_seconds_total", `pool="engine"`) > 4 }, func() {}, always)
		// What was waited for in two seconds, in each two seconds of ten minutes.
		waited := f.during.sum("kapsel_pool_acquire_wait_seconds_total", `pool="engine"`) - f.before.sum("kapsel_pool_acquire_wait_seconds_total", `pool="engine"`)
		f.during[`kapsel_pool_acquire_wait_seconds_total{pool="engine"}`] += 299 * waited
		f.after[`kapsel_pool_acquire_wait_seconds_total{pool="engine"}`] = f.during[`kapsel_pool_acquire_wait_seconds_total{pool="engine"}`]
		f.fires(t, 10, "KapselPoolExhausted")
	})
	t.Run("the log contradicts what was signed", func(t *testing.T) {
		var root []byte
		if err := r.owner.QueryRow(t.Context(), "select root_hash from log_sealers").Scan(&root); err != nil {
			t.Fatal(err)
		}
		f := filmed(t, r, n, func() {
			r.exec("update log_sealers set root_hash = sha256('another')")
			again(t, n, "sealer")
			r.load(1, 0, func(int) *Node { return n })
			eventually(t, "it is recorded", func() bool {
				return r.count("select count(*) from attempts a, log_sealers s where leaf_index >= tree_size") > 0
			})
			r.exec("alter table attempts disable trigger attempts_append_only")
			r.exec("update attempts a set recorded_at = recorded_at - interval '2 min' from log_sealers s where leaf_index >= tree_size")
		}, func(e exposition) bool {
			return e[`kapsel_component_ended_total{component="sealer"}`] >= 1 && e["kapsel_log_oldest_unsealed_leaf_seconds"] > 60
		}, func() {
			r.exec("update log_sealers set root_hash = $1", root)
			again(t, n, "sealer")
		}, func(e exposition) bool { return e["kapsel_log_oldest_unsealed_leaf_seconds"] == 0 })
		f.after[`kapsel_component_ended_total{component="sealer"}`] = 0 // as it is when the process is started again
		f.fires(t, 5, "KapselSealerRefused", "KapselSealerLagging")
	})
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
