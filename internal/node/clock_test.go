package node

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestClocksThatDifferAreComplainedAboutOnceAnHour(t *testing.T) {
	var said bytes.Buffer
	log := slog.New(slog.NewTextHandler(&said, nil))
	var check clockCheck
	noon := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		database time.Time
		asked    time.Duration // after noon; the answer comes five seconds later
		want     string
	}{
		{noon, 0, ""},
		{noon.Add(5 * time.Second), 0, ""},
		{noon.Add(-time.Minute), 0, ""},
		{noon.Add(-2 * time.Hour), 0, "ahead=2h0m0s"},
		{noon.Add(-2 * time.Hour), time.Minute, ""},
		{noon.Add(3 * time.Hour), time.Hour, "ahead=-1h59m55s"},
	} {
		said.Reset()
		asked := noon.Add(test.asked)
		check.compare(test.database, asked, asked.Add(5*time.Second), log)
		if got := said.String(); test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("asked at %v, the database said %v: logged %q, want %q", asked, test.database, got, test.want)
		}
	}
}
