package chaos

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

var (
	soakFlag     = flag.Duration("soak", 0, "how long the soak puts its load on; 0: no soak")
	soakRateFlag = flag.Int("soak-rate", 200, "webhooks a second of the soak")
	soakJSONFlag = flag.String("soak-json", "", "file that gets the soak's samples and trends")
)

const (
	soakSamples = 120 // of a run
	// soakFailing is the share of deliveries that fail at first, so that the queue holds retries.
	soakFailing = 0.02
)

// A node under steady load for an hour holds no more at its end than it did before: no memory, goroutine, connection or queue
// row is left behind. make soak runs it.
func TestSoakStaysFlat(t *testing.T) {
	if *soakFlag == 0 {
		t.Skip("takes an hour: run make soak")
	}
	r := NewRandom(t)
	ctx, cancel := context.WithTimeout(context.Background(), *soakFlag+10*time.Minute)
	defer cancel()
	cluster := NewCluster(t, r)
	admin := FreeAddress(t, r)
	cluster.flags = []string{"--admin-listen", admin}
	node := cluster.Start(t, "soak")
	sink := NewFailingSink(t, r, soakFailing)
	route := node.API().CreateRouteWith(t, sink.URL, stormDestination)
	conn, err := pgx.Connect(ctx, cluster.DatabaseURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(ctx))

	count := int(soakFlag.Seconds() * float64(*soakRateFlag))
	sources := Load{IngestURLs: []string{node.IngestURL(route)}, Secret: route.Secret, Count: count, PerSecond: *soakRateFlag, Conns: 64}.Start(ctx, r)
	samples := soak(ctx, t, node, conn, admin, sources)
	posted := sources.Wait(t)
	trends, err := Trends(samples)
	if err != nil {
		t.Fatal(err)
	}
	var table strings.Builder
	if err := WriteTrends(&table, trends); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d webhooks in %v, %d samples\n%s", count, *soakFlag, len(samples), table.String())
	writeSoak(t, samples, trends)
	for _, trend := range trends {
		if trend.Grows {
			t.Errorf("%s grows: %.1f in the middle third, %.1f in the last one: want at most %.1f", trend.Name, trend.Middle, trend.Last, trend.MaxLast)
		}
	}
	sink.AwaitAll(t, posted, settlePatience)
	AwaitSettled(t, cluster.DatabaseURL(), settlePatience)
	CheckFsck(t, cluster)
}

// soak samples until the load's time is over.
func soak(ctx context.Context, t *testing.T, node *Node, conn *pgx.Conn, admin string, sources *Sources) []Sample {
	t.Helper()
	var samples []Sample
	began := time.Now()
	ticker := time.NewTicker(*soakFlag / soakSamples)
	defer ticker.Stop()
	for time.Since(began) < *soakFlag {
		select {
		case <-ctx.Done():
			t.Fatal(ctx.Err())
		case <-sources.done:
			return samples
		case <-ticker.C:
		}
		s := Sample{
			Seconds: time.Since(began).Seconds(), Acknowledged: sources.acked.Load(),
			ResidentMiB: residentMiB(t, node.cmd.Process.Pid), Goroutines: goroutines(t, admin),
		}
		err := conn.QueryRow(ctx, `select pg_table_size(relid) / 1048576.0, pg_indexes_size(relid) / 1048576.0, n_dead_tup, n_live_tup,
			(select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend')
			from pg_stat_user_tables where relname = 'delivery_queue'`).Scan(&s.QueueTableMiB, &s.QueueIndexMiB, &s.QueueDeadTuples, &s.QueueRows, &s.Connections)
		if err != nil {
			t.Fatalf("look at the queue: %v", err)
		}
		samples = append(samples, s)
	}
	return samples
}

// residentMiB is the resident memory of a process, as ps knows it on every system.
func residentMiB(t *testing.T, pid int) float64 {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), "ps", "-o", "rss=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		t.Fatalf("ask ps for the node's memory: %v", err)
	}
	kib, err := strconv.ParseFloat(strings.TrimSpace(string(output)), 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib / 1024
}

// goroutines reads the first line of a goroutine profile: "goroutine profile: total 123".
func goroutines(t *testing.T, admin string) float64 {
	t.Helper()
	response, err := http.Get("http://" + admin + "/debug/pprof/goroutine?debug=1")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	line, err := bufio.NewReader(response.Body).ReadString('\n')
	var total float64
	if _, scanErr := fmt.Sscanf(line, "goroutine profile: total %f", &total); err != nil || scanErr != nil {
		t.Fatalf("goroutine profile begins with %q (%v)", line, err)
	}
	return total
}

func writeSoak(t *testing.T, samples []Sample, trends []Trend) {
	t.Helper()
	if *soakJSONFlag == "" {
		return
	}
	text, err := json.MarshalIndent(map[string]any{
		"seconds": soakFlag.Seconds(), "per_second": *soakRateFlag, "trends": trends, "samples": samples,
	}, "", "\t")
	if err == nil {
		err = os.WriteFile(*soakJSONFlag, append(text, '\n'), 0o644)
	}
	if err != nil {
		t.Errorf("write %s: %v", *soakJSONFlag, err)
	}
}

// A soak must see what it is for: each thing that grows by itself, and nothing in a run that only moves up and down.
func TestSoakSeesWhatGrows(t *testing.T) {
	flat := func(i int) Sample {
		return Sample{ResidentMiB: 90 + float64(i%7), Goroutines: 120 + float64(i%5), QueueTableMiB: 4, QueueIndexMiB: 2,
			QueueDeadTuples: float64(i%10) * 1500, Connections: 14}
	}
	run := func(change func(*Sample, float64)) (grown []string) {
		var samples []Sample
		for i := range soakSamples {
			s := flat(i)
			change(&s, float64(i))
			samples = append(samples, s)
		}
		trends, err := Trends(samples)
		if err != nil {
			t.Fatal(err)
		}
		for _, trend := range trends {
			if trend.Grows {
				grown = append(grown, trend.Name)
			}
		}
		return grown
	}
	if grown := run(func(*Sample, float64) {}); len(grown) > 0 {
		t.Errorf("nothing grows, and it sees %q", grown)
	}
	for name, change := range map[string]func(*Sample, float64){
		"resident memory, MiB": func(s *Sample, i float64) { s.ResidentMiB += i },
		"goroutines":           func(s *Sample, i float64) { s.Goroutines += i },
		"queue table, MiB":     func(s *Sample, i float64) { s.QueueTableMiB += i / 10 },
		"queue indexes, MiB":   func(s *Sample, i float64) { s.QueueIndexMiB += i / 10 },
		"queue dead tuples":    func(s *Sample, i float64) { s.QueueDeadTuples += 1000 * i },
		"database connections": func(s *Sample, i float64) { s.Connections += i / 8 },
	} {
		if grown := run(change); len(grown) != 1 || grown[0] != name {
			t.Errorf("%s grows, and it sees %q", name, grown)
		}
	}
	if _, err := Trends(make([]Sample, minSoakSamples-1)); err == nil {
		t.Error("a few samples are judged: want an error")
	}
}
