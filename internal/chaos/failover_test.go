package chaos

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kapsel-dev/kapsel/internal/embedpg"
	"github.com/kapsel-dev/kapsel/internal/embedpg/pgtest"
)

// The primary is killed under load, and its synchronous standby is promoted: nothing that was acknowledged is lost, sources
// are held or refused meanwhile, and the log goes on where it was.
func TestFailoverToASynchronousStandbyLosesNothing(t *testing.T) { failOver(t, false) }

// The same with a PgBouncer before each server, which pools by session.
func TestFailoverBehindAPoolerLosesNothing(t *testing.T) { failOver(t, true) }

func failOver(t *testing.T, pooled bool) {
	ctx, r := scenario(t)
	cluster, standby := newReplicatedCluster(t, r, pooled)
	node, other := cluster.Start(t, "a"), cluster.Start(t, "b")
	sink := NewSink(t)
	route := node.CreateRoute(t, sink.URL)

	count := scaled(10_000)
	sources := Load{
		IngestURLs: []string{node.IngestURL(route), other.IngestURL(route)}, Secret: route.Secret,
		Count: count, PerSecond: scaled(2000), Conns: 32,
	}.Start(ctx, r)
	before := node.Log(t).AwaitLeaves(t, 1, startPatience)
	sources.AwaitAcked(t, count/5+r.IntN(count/3))
	if err := cluster.Postgres.Kill(ctx); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	promote(ctx, t, standby)
	away := time.Since(killed)
	posted := sources.Wait(t)
	if node.Ended() || other.Ended() {
		t.Fatal("a node did not survive the failover")
	}
	for _, p := range posted {
		for _, refusal := range p.Refusals {
			if refusal.Status != 503 {
				t.Errorf("a source was refused with status %d: want 503: %s", refusal.Status, refusal.Body)
			}
		}
	}

	cluster.databaseURL = standby.ConnString("postgres")
	sink.AwaitAll(t, posted, settlePatience)
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	ledger, arrivals := ReadLedger(t, cluster.DatabaseURL()), sink.Arrivals()
	CheckKept(t, posted, ledger, arrivals)
	repeats := CheckRecorded(t, ledger, arrivals)
	CheckLog(t, node.Log(t), before, ledger)
	CheckFsck(t, cluster)
	t.Logf("%d webhooks, the standby took over after %v, %d tries refused, longest gap between acks %v, %d leaves, %d repeats",
		count, away.Round(time.Millisecond), refused(posted), sources.LongestGap().Round(time.Millisecond), len(ledger.Leaves), repeats)
}

// newReplicatedCluster is a cluster on a primary whose COMMITs wait for a standby. Nodes know both, and connect to the one
// that takes writes.
func newReplicatedCluster(t *testing.T, r *Random, pooled bool) (*Cluster, *embedpg.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*startPatience)
	defer cancel()
	primary := startPostgres(ctx, t, nil)
	standby := startPostgres(ctx, t, primary)
	conn, err := pgx.Connect(ctx, primary.ConnString("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	for _, statement := range []string{
		"alter system set synchronous_standby_names = 'FIRST 1 (" + embedpg.StandbyName + ")'", "select pg_reload_conf()",
	} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	for state := ""; state != "sync"; time.Sleep(10 * time.Millisecond) {
		err := conn.QueryRow(ctx, `select coalesce((select sync_state from pg_stat_replication), '')`).Scan(&state)
		if err != nil {
			t.Fatalf("await the standby: %v", err)
		}
	}
	first, second, parameters := primary.ConnString("postgres"), standby.ConnString("postgres"), ""
	if pooled {
		first, second = pgtest.Bouncer(t, first, "session", "extra_float_digits"), pgtest.Bouncer(t, second, "session", "extra_float_digits")
		parameters = "&sslmode=disable&pooler=session"
	}
	c := &Cluster{Postgres: primary, databaseURL: bothURL(t, first, second) + parameters, random: r, state: t.TempDir()}
	c.prepare(t)
	return c, standby
}

func startPostgres(ctx context.Context, t *testing.T, primary *embedpg.Server) *embedpg.Server {
	t.Helper()
	server, err := embedpg.Start(ctx, embedpg.Config{DataDir: makeDiskDirectory(t), Durable: true, StandbyOf: primary})
	if errors.Is(err, embedpg.ErrNoBaseBackup) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("start PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Errorf("stop PostgreSQL: %v", err)
		}
	})
	return server
}

// bothURL names two servers, of which the one that takes writes is used.
func bothURL(t *testing.T, first, second string) string {
	t.Helper()
	var hosts, ports []string
	for _, server := range []string{first, second} {
		config, err := pgx.ParseConfig(server)
		if err != nil {
			t.Fatal(err)
		}
		hosts, ports = append(hosts, config.Host), append(ports, strconv.Itoa(int(config.Port)))
	}
	return "postgres://postgres@/postgres?target_session_attrs=read-write&host=" + strings.Join(hosts, ",") + "&port=" + strings.Join(ports, ",")
}

// promote makes the standby a primary, as whoever watches over the two would.
func promote(ctx context.Context, t *testing.T, standby *embedpg.Server) {
	t.Helper()
	conn, err := pgx.Connect(ctx, standby.ConnString("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	var promoted bool
	if err := conn.QueryRow(ctx, "select pg_promote(true, 30)").Scan(&promoted); err != nil || !promoted {
		t.Fatalf("promote the standby: %v, %v", promoted, err)
	}
}
