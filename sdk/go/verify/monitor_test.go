package verify_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kapsel-dev/kapsel/sdk/go/logclient"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

func monitor(l *testLog, url, dir string) *logclient.Monitor {
	return &logclient.Monitor{Client: logclient.Client{HTTP: http.DefaultClient, URL: url, Keys: []string{l.verifierKey()}}, Dir: dir}
}

func TestMonitorGoesOnWhereItWas(t *testing.T) {
	l := attemptLog(t)
	l.fill(t, 700)
	dir := t.TempDir()
	for _, size := range []int64{0, 1, 40, 40, 256, 257, 700} {
		head, err := monitor(l, serve(t, l, size), dir).Step(t.Context()) // another process each time
		if err != nil || head.Size != size {
			t.Fatalf("size %d: %v, %v", size, head, err)
		}
	}
	files, _ := os.ReadDir(dir)
	if len(files) != 1 {
		t.Errorf("files %v, want the state alone", files)
	}
}

func TestMonitorRaisesAlarm(t *testing.T) {
	l := attemptLog(t)
	l.fill(t, 600)
	fork := newLog(testOrigin, 1)
	fork.add(t, []byte("another beginning"))
	fork.fill(t, 600)
	stranger := newLog(testOrigin, 5)
	stranger.fill(t, 600)
	for _, c := range []struct {
		name   string
		log    *testLog
		size   int64
		reason string
	}{
		{"rollback", l, 299, "cut back"},
		{"fork of the same size", fork, 300, "two versions"},
		{"fork that has grown", fork, 600, "two versions"},
		{"another key", stranger, 600, "no trusted key"},
	} {
		dir := t.TempDir()
		if _, err := monitor(l, serve(t, l, 300), dir).Step(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := monitor(l, serve(t, c.log, c.size), dir).Step(t.Context())
		var alarm *logclient.Alarm
		if !errors.As(err, &alarm) || !strings.Contains(alarm.Reason, c.reason) {
			t.Errorf("%s: got %v", c.name, err)
			continue
		}
		data, err := os.ReadFile(alarm.File)
		if err != nil || !strings.Contains(string(data), `"kapsel-evidence/v1"`) || alarm.Known != l.checkpoint(t, 300) || alarm.Served != c.log.checkpoint(t, c.size) {
			t.Errorf("%s: evidence %s, %v", c.name, data, err)
		}
		// What was known stays known: the log is not trusted again by itself.
		if head, err := monitor(l, "http://127.0.0.1:1", dir).Known(); err != nil || head.Size != 300 {
			t.Errorf("%s: known %v, %v", c.name, head, err)
		}
	}
}

// A page that a proxy serves in the log's place is no fork.
func TestMonitorGoesOnAfterWhatIsNoCheckpoint(t *testing.T) {
	l := attemptLog(t)
	for name, page := range map[string]string{"a page": "<html>Sign in to the network</html>\n", "nothing": "", "no signature": l.text(t, 40)} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, page) }))
		t.Cleanup(server.Close)
		dir := t.TempDir()
		_, err := monitor(l, server.URL, dir).Step(t.Context())
		if alarm := (*logclient.Alarm)(nil); err == nil || errors.As(err, &alarm) || !strings.Contains(err.Error(), "no signature") {
			t.Errorf("%s: got %v", name, err)
		}
		if files, _ := os.ReadDir(dir); len(files) > 0 {
			t.Errorf("%s: there is evidence of nothing: %v", name, files)
		}
	}
}

func TestMonitorStateThatIsDamaged(t *testing.T) {
	l := attemptLog(t)
	for name, state := range map[string]string{
		"cut off": `{"format":"kapsel-monitor/v1","not`, "empty": "", "another format": `{"format":"x","note":"y"}`,
		"unsigned": `{"format":"kapsel-monitor/v1","note":"a\n1\n2\n"}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "head.json"), []byte(state), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := monitor(l, serve(t, l, 40), dir).Step(t.Context()); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// leafHashes is a source of leaves that can lie.
type leafHashes struct {
	log     *testLog
	changed map[int64]*[32]byte // nil: erased
	missing map[int64]bool
}

func (s leafHashes) Leaves(_ context.Context, first, end int64, take func(int64, *[32]byte) error) error {
	for i := first; i < end; i++ {
		hash := [32]byte(tlog.RecordHash(s.log.leaves[i]))
		other, changed := s.changed[i]
		switch {
		case s.missing[i]:
			continue
		case !changed:
			other = &hash
		}
		if err := take(i, other); err != nil {
			return err
		}
	}
	return nil
}

func TestAudit(t *testing.T) {
	l := newLog(testOrigin, 1)
	l.fill(t, 70_000)
	for _, size := range []int64{0, 1, 255, 256, 257, 65_535, 65_536, 65_537, 70_000} {
		a := &logclient.Audit{Client: monitor(l, serve(t, l, size), "").Client, Leaves: leafHashes{log: l}}
		report, err := a.Run(t.Context())
		if err != nil || report.Compared != size || report.Found != 0 {
			t.Fatalf("size %d: %+v, %v", size, report, err)
		}
	}
	client := monitor(l, serve(t, l, 1000), "").Client
	lie := leafHashes{log: l, changed: map[int64]*[32]byte{3: {}, 500: nil}, missing: map[int64]bool{600: true, 601: true, 999: true}}
	report, err := (&logclient.Audit{Client: client, Leaves: lie, FirstLeaf: 2}).Run(t.Context())
	var refused *verify.Error
	if !errors.As(err, &refused) || refused.Check != logclient.CheckLeaves || report.Erased != 1 || report.Found != 3 {
		t.Fatalf("%+v, %v", report, err)
	}
	if got := strings.Join(report.Differences, "; "); !strings.HasPrefix(got, "leaf 3 has other bytes") || !strings.Contains(got, "leaves 600 to 601 are missing; leaves 999 to 999 are missing") {
		t.Errorf("got %s", got)
	}
}
