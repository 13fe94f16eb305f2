package node

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
	"github.com/kapsel-dev/kapsel/internal/id"
)

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
	f.burns(t, "KapselIntakeBudgetSlow", "KapselProofBudgetSlow")
}

func TestCausesRaiseTheirAlerts(t *testing.T) {
	r := newRig(t)
	config := r.config()
	withAdmin(&config)
	config.BreakerPause, config.Hold = 50*time.Millisecond, patience
	witnessAway := r.witnessed(&config)
	n := r.start(config)
	r.configure(10 * time.Second)
	r.refresh(n)
	answer := func(status int) func() {
		return func() { r.sink.answers(func(*http.Request, string, int) int { return status }) }
	}
	open := func(e exposition) bool { return e[`kapsel_delivery_breakers{state="closed"}`] == 0 }
	closed := func(e exposition) bool { return e[`kapsel_delivery_breakers{state="closed"}`] == 1 }
	r.load(1, 0, func(int) *Node { return n })
	shot(t, n, "the destination works", closed)

	t.Run("a destination fails", func(t *testing.T) {
		f := filmed(t, n, func() {
			answer(http.StatusInternalServerError)()
			r.load(12, 0, func(int) *Node { return n })
		}, open, answer(http.StatusOK), closed)
		f.fires(t, 20, "KapselBreakersOpen")
	})
	t.Run("retries end in vain", func(t *testing.T) {
		r.exec(`update destinations set retry_policy = '{"schedule":["0s"],"maxAttempts":20,"fatalStatuses":[400],"jitter":0}'`)
		r.refresh(n)
		f := filmed(t, n, func() {
			r.sink.answers(func(_ *http.Request, _ string, seen int) int {
				if seen == 1 {
					return http.StatusTooManyRequests
				}
				return http.StatusBadRequest
			})
			r.load(30, 0, func(int) *Node { return n })
		}, func(e exposition) bool { return e[`kapsel_delivery_dead_letters_total{reason="fatal_status"}`] == 30 }, answer(http.StatusOK), always)
		f.fires(t, 20, "KapselDeadLetters", "KapselRetryBudgetFast")
		f.burns(t, "KapselRetryBudgetSlow")
	})
	t.Run("signatures are wrong", func(t *testing.T) {
		path := r.signedEndpoint(n)
		f := filmed(t, n, func() {
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
		f := filmed(t, n, func() { r.load(20, 0, func(int) *Node { return n }) },
			func(e exposition) bool { return slow(e) >= 20 }, func() {}, always)
		f.fires(t, 10, "KapselAckBudgetFast")
		f.burns(t, "KapselAckBudgetSlow")
	})
	t.Run("the database takes no webhooks, and many wait", func(t *testing.T) {
		r.exec("update endpoints set max_body_bytes = $1", 2*largeBody)
		r.refresh(n)
		var sources sync.WaitGroup
		unlock := r.lock("events", "share")
		f := filmed(t, n, func() {
			for i := range 60 { // 60 MiB, of which the committer has up to 8 in its hands
				sources.Go(func() { r.post(n, fmt.Sprint("large ", i), bytes.Repeat([]byte{' '}, largeBody)) })
			}
		}, func(e exposition) bool { return e["kapsel_ingest_waiting_payload_bytes"] > 0.8*64*(1<<20) }, func() {
			unlock()
			sources.Wait()
		}, func(e exposition) bool { return e["kapsel_ingest_waiting_payload_bytes"] == 0 })
		f.fires(t, 5, "KapselIntakeFull")
	})
	t.Run("the database refuses a result", func(t *testing.T) {
		f := filmed(t, n, func() {
			r.exec("alter table attempts add constraint nothing_new check (recorded_at < now()) not valid")
			r.load(1, 0, func(int) *Node { return n })
		}, func(e exposition) bool { return e["kapsel_recorder_refused_total"] == 1 }, func() {
			r.exec("alter table attempts drop constraint nothing_new")
			// What was refused would be an attempt of unknown outcome once its lease ends. Truncated, the table could be counted as empty
			// much later, when this session tells its statistics.
			r.exec("delete from delivery_queue")
		}, always)
		f.fires(t, 10, "KapselResultsRefused")
	})
	t.Run("tiles are slow", func(t *testing.T) {
		config := r.config()
		withAdmin(&config)
		config.Roles = []Role{RoleAPI}
		reader := r.start(config) // which has read no tile yet
		unlock := r.lock("tiles", "access exclusive")
		slow := func(e exposition) float64 {
			return e[`kapsel_proof_duration_seconds_count{kind="consistency"}`] - e[`kapsel_proof_duration_seconds_bucket{kind="consistency",le="0.05"}`]
		}
		var asked sync.WaitGroup
		f := filmed(t, reader, func() {
			asked.Go(func() { call(t, reader, "GetConsistencyProof", `{"logId":"1","fromSize":"1"}`) })
			eventually(t, "a proof waits for its tiles", func() bool {
				return r.count(`select count(*) from pg_stat_activity where datname = current_database()
					and wait_event_type = 'Lock' and query like '-- name: GetTiles%' and now() - query_start > interval '0.1 s'`) > 0
			})
			unlock()
			asked.Wait()
		}, func(e exposition) bool { return slow(e) == 1 }, func() {}, always)
		f.fires(t, 20, "KapselProofsSlow")
	})
	t.Run("a tenant is over its limit", func(t *testing.T) {
		limit := func(webhooks any) {
			r.exec("update tenants set ingest_per_second = $1", webhooks)
			r.refresh(n)
		}
		f := filmed(t, n, func() {
			limit(1)
			for i := range 20 {
				r.post(n, fmt.Sprintf("too many %d", i), nil)
			}
		}, func(e exposition) bool { return e[`kapsel_limit_refusals_total{limit="per_second"}`] > 5 }, func() { limit(nil) }, always)
		f.fires(t, 40, "KapselLimitsHit")
	})
	t.Run("partitions are missing", func(t *testing.T) {
		f := filmed(t, n, func() {
			for day := 2; day < 8; day++ {
				r.exec("drop table events_" + time.Now().UTC().AddDate(0, 0, day).Format("20060102"))
			}
		}, func(e exposition) bool { return e["kapsel_partitions_ready"] < 3 }, func() {
			eventually(t, "partitions are made", func() bool { // it gives up where others hold the table for a moment
				_, err := n.db.MakePartitions(t.Context(), n.db.Engine(), partitionDaysAhead)
				return err == nil
			})
		}, func(e exposition) bool { return e["kapsel_partitions_ready"] == 8 })
		f.fires(t, 8, "KapselPartitionsMissing")
	})
	t.Run("a node died in the middle of an attempt, and nobody claims", func(t *testing.T) {
		again(t, n, "claimer") // so that there is one to be removed
		f := filmed(t, n, func() {
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
		f := filmed(t, n, func() {
			n.failures.With("component", "shaky", "cause", "panic") // as add does
		}, always, func() {}, always)
		f.before = f.during
		var starts atomic.Int64
		n.add("shaky", func(context.Context) error {
			if starts.Add(1) < 6 {
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
		f := filmed(t, n, func() {
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
	t.Run("a witness is away", func(t *testing.T) {
		witnessed := func(e exposition) bool {
			missing, shown := e["kapsel_witness_quorum_missing_seconds"]
			return shown && missing == 0
		}
		f := film{before: shot(t, n, "the last head has its quorum", witnessed)}
		witnessAway.Store(true)
		r.load(1, 0, func(int) *Node { return n })
		f.during = shot(t, n, "the next one lacks it", func(e exposition) bool {
			return e["kapsel_witness_quorum_missing_seconds"] > 5 && e[`kapsel_witness_answers_total{result="failed",witness="other"}`] > 2
		})
		witnessAway.Store(false)
		f.after = shot(t, n, "it has come", witnessed)
		f.fires(t, 10, "KapselQuorumMissing", "KapselWitnessFailing")
	})
	t.Run("a long transaction keeps a day from being dropped", func(t *testing.T) {
		if err := n.remove("retention")(within(t)); err != nil { // which comes once an hour
			t.Fatal(err)
		}
		enforce := func(ago time.Duration) error { return n.retention.Enforce(t.Context(), time.Now().Add(-ago)) }
		if err := enforce(0); err != nil {
			t.Fatal(err)
		}
		unlock := func() {}
		f := filmed(t, n, func() {
			if err := enforce(5 * time.Hour); err != nil {
				t.Error(err)
			}
			r.exec("select kapsel_make_partitions(current_date - 40, current_date - 40)")
			unlock = r.lock("events", "access share")
			if enforce(0) == nil {
				t.Error("a day was dropped that somebody reads")
			}
		}, func(e exposition) bool {
			return e["kapsel_retention_last_success_age_seconds"] > 4*3600 && e[`kapsel_retention_runs_total{result="failed"}`] >= 1
		}, func() {
			unlock()
			if err := enforce(0); err != nil {
				t.Error(err)
			}
		}, func(e exposition) bool { return e[`kapsel_retention_dropped_partitions_total{table="events"}`] == 1 })
		f.fires(t, 20, "KapselRetentionFailing")
	})
	t.Run("the log contradicts what was signed", func(t *testing.T) {
		var root []byte
		if err := r.owner.QueryRow(t.Context(), "select root_hash from log_sealers").Scan(&root); err != nil {
			t.Fatal(err)
		}
		f := filmed(t, n, func() {
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
	t.Run("a million deliveries are held", func(t *testing.T) {
		r.exec("alter table delivery_queue set (autovacuum_enabled = false)") // whose own estimate may come late
		f := filmed(t, n, func() {
			r.exec(`insert into delivery_queue (tenant_id, delivery_id, event_id, endpoint_id, destination_id, due_at)
				select tenant_id, lpad(to_hex(i), 32, '0')::uuid, $1, endpoint_id, destination_id, 'infinity' from destinations, generate_series(1, 1000001) i`, id.New())
		}, func(e exposition) bool { return e["kapsel_queue_estimated_deliveries"] > 1e6 }, func() {
			r.exec("delete from delivery_queue where delivery_id <= lpad('ff', 32, '0')::uuid")
		}, func(e exposition) bool { return e["kapsel_queue_estimated_deliveries"] < 1e6 })
		f.fires(t, 15, "KapselQueueDeep")
	})
	t.Run("a node is gone", func(t *testing.T) {
		f := film{before: shot(t, n, "the node is well", probed)}
		r.stop(n)
		f.during = silent(t, n)
		f.after = shot(t, r.start(n.config), "another one is well", probed)
		f.fires(t, 5, "KapselDown")
	})
}

// largeBody is what few webhooks fill a buffer with.
const largeBody = 1 << 20

// lock keeps others from a table until what it returns is called.
func (r *rig) lock(table, mode string) (unlock func()) {
	r.t.Helper()
	tx, err := r.owner.Begin(r.t.Context())
	if err == nil {
		_, err = tx.Exec(r.t.Context(), "lock table "+table+" in "+mode+" mode")
	}
	if err != nil {
		r.t.Fatalf("lock %s: %v", table, err)
	}
	unlock = sync.OnceFunc(func() { tx.Rollback(context.Background()) })
	r.t.Cleanup(unlock)
	return unlock
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
