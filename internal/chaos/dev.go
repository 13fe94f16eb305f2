package chaos

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/embedpg"
)

// Dev is `kapsel dev` on a data directory that outlives it.
type Dev struct {
	*Process
	Ready Ready

	dir     string
	address string
	flags   []string
}

// Ready is what --ready-file holds.
type Ready struct {
	URL            string `json:"url"`
	APIKey         string `json:"api_key"`
	EndpointID     string `json:"endpoint_id"`
	IngestURL      string `json:"ingest_url"`
	SigningSecret  string `json:"signing_secret"`
	DestinationID  string `json:"destination_id"`
	DestinationURL string `json:"destination_url"`
	LogID          string `json:"log_id"`
	LogURL         string `json:"log_url"`
	PublicKey      string `json:"public_key"`
}

// firstStartPatience is long enough to fetch PostgreSQL where none is installed.
const firstStartPatience = 2 * time.Minute

// StartDev runs `kapsel dev` on a new data directory, on a disk, with these flags besides. An address with port 0 picks a port at
// each start.
func StartDev(t testing.TB, address string, flags ...string) *Dev {
	t.Helper()
	d := &Dev{dir: makeDiskDirectory(t), address: address, flags: flags}
	d.Restart(t)
	return d
}

// Restart starts it again on the same data directory.
func (d *Dev) Restart(t testing.TB) {
	t.Helper()
	readyFile := filepath.Join(d.dir, "ready.json")
	os.Remove(readyFile) // of an earlier start
	d.Process = Launch(t, append([]string{"dev", "--listen", d.address, "--data-dir", d.dir, "--ready-file", readyFile, "--seal-age", "1s"}, d.flags...)...)
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		text, err := os.ReadFile(readyFile)
		if err == nil {
			d.Ready = Ready{}
			if err := json.Unmarshal(text, &d.Ready); err != nil {
				t.Fatalf("the ready file is not JSON: %v\n%s", err, text)
			}
			break
		}
		if d.Ended() {
			t.Fatalf("kapsel dev has ended instead of getting ready:\n%s", d.stderr.text())
		}
		if time.Since(began) > firstStartPatience {
			t.Fatalf("kapsel dev is not ready after %v:\n%s", firstStartPatience, d.stderr.text())
		}
	}
	AwaitAnswer(t, d.Process, d.Ready.URL+"/readyz", startPatience)
}

// DataDir is its --data-dir.
func (d *Dev) DataDir() string { return d.dir }

// API is the demo tenant's.
func (d *Dev) API() API { return API{URL: d.Ready.URL, Key: d.Ready.APIKey} }

// Log reads the served log and trusts the key in the data directory.
func (d *Dev) Log(t testing.TB) *LogClient {
	t.Helper()
	return newLogClient(t, d.Ready.LogURL, filepath.Join(d.dir, "state", "log.key"))
}

// ReadStopped reads the ledger of a stopped `kapsel dev`, on a PostgreSQL that is started for that and stopped again, and
// calls look with the database's URL.
func (d *Dev) ReadStopped(ctx context.Context, t testing.TB, look func(databaseURL string)) {
	t.Helper()
	server, err := embedpg.Start(ctx, embedpg.Config{DataDir: filepath.Join(d.dir, "postgres"), Durable: true})
	if err != nil {
		t.Fatalf("start PostgreSQL on what kapsel dev left: %v", err)
	}
	defer func() {
		if err := server.Stop(context.WithoutCancel(ctx)); err != nil {
			t.Errorf("stop PostgreSQL: %v", err)
		}
	}()
	look(server.ConnString("postgres"))
}

// makeDiskDirectory makes a directory for a PostgreSQL, on a disk.
func makeDiskDirectory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(diskDirectory(), "kapsel-chaos-")
	if err != nil {
		t.Fatalf("make a data directory: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) // after the process has ended: cleanups run backwards
	// As root, PostgreSQL runs as another user, who has to pass through.
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatalf("open the data directory: %v", err)
	}
	return dir
}

// diskDirectory is where files are on a disk, even where the usual directory for temporary ones is in memory.
func diskDirectory() string {
	if info, err := os.Stat("/var/tmp"); err == nil && info.IsDir() {
		return "/var/tmp"
	}
	return os.TempDir()
}
