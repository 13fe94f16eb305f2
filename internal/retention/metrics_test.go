package retention

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/telemetry"
)

func TestKeeperShowsWhatItLetGoAndForHowLongItFailed(t *testing.T) {
	r := newRig(t)
	meter, err := telemetry.NewMeter("")
	if err != nil {
		t.Fatal(err)
	}
	k := r.keeper()
	k.SetMeter(meter)
	shown := func() string {
		w := httptest.NewRecorder()
		meter.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return w.Body.String()
	}
	age := func() float64 {
		found := regexp.MustCompile(`(?m)^kapsel_retention_last_success_age_seconds (\S+)$`).FindStringSubmatch(shown())
		if found == nil {
			t.Fatalf("no age is shown:\n%s", shown())
		}
		age, err := strconv.ParseFloat(found[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		return age
	}
	expect := func(lines ...string) {
		t.Helper()
		text := shown()
		for _, line := range lines {
			if !strings.Contains(text, "\n"+line+"\n") {
				t.Errorf("want %s, shown is\n%s", line, text)
			}
		}
	}
	expect(`kapsel_retention_runs_total{result="done"} 0`, `kapsel_retention_runs_total{result="failed"} 0`,
		`kapsel_retention_dropped_partitions_total{table="events"} 0`, `kapsel_retention_deleted_rows_total{rows="audit_entries"} 0`)

	short, long := r.tenant(3), r.tenant(60)
	r.event(short, 10) // its redelivery is deleted too
	r.event(long, 45)
	if err := k.Enforce(t.Context(), r.now.Add(-5*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if got := age(); got < 5*3600 || got > 6*3600 {
		t.Errorf("enforced five hours ago: the age shown is %v s", got)
	}
	expect(`kapsel_retention_runs_total{result="done"} 1`, `kapsel_retention_deleted_rows_total{rows="events"} 1`,
		`kapsel_retention_deleted_rows_total{rows="redeliveries"} 1`)
	if strings.Contains(shown(), `kapsel_retention_dropped_partitions_total{table="events"} 0`) || strings.Contains(shown(), `kapsel_retention_dropped_partitions_total{table="attempts"} 0`) {
		t.Errorf("days were dropped, and none is shown:\n%s", shown())
	}

	r.exec(`select kapsel_make_partitions((now() at time zone 'UTC')::date - 70, (now() at time zone 'UTC')::date - 70)`)
	tx, err := r.owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(t.Context())
	if _, err := tx.Exec(t.Context(), "lock table events in access share mode"); err != nil {
		t.Fatal(err)
	}
	if err := k.EnforceNow(t.Context()); err == nil {
		t.Error("a day was dropped against a lock")
	}
	expect(`kapsel_retention_runs_total{result="failed"} 1`)
	if age() < 5*3600 {
		t.Error("a failure passes for a success")
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := k.EnforceNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(`kapsel_retention_runs_total{result="done"} 2`)
	if age() > 3600 {
		t.Error("a success does not show")
	}
}
