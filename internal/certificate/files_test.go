package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/certtest"
)

// directory is where a certificate and key are replaced.
type directory struct {
	t         *testing.T
	cert, key string
	log       lockedBuffer
}

func newDirectory(t *testing.T, pair certtest.Pair) *directory {
	d := &directory{t: t, cert: filepath.Join(t.TempDir(), "tls.crt"), key: filepath.Join(t.TempDir(), "tls.key")}
	d.write(d.cert, pair.Certificate)
	d.write(d.key, pair.Key)
	return d
}

func (d *directory) write(name string, text []byte) {
	d.t.Helper()
	if err := os.WriteFile(name+".new", text, 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		d.t.Fatal(err)
	}
}

func (d *directory) open() *Files {
	d.t.Helper()
	files, err := OpenFiles(d.cert, d.key, 5*time.Millisecond, slog.New(slog.NewTextHandler(&d.log, nil)))
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { files.Run(ctx) })
	d.t.Cleanup(func() { cancel(); running.Wait() })
	return files
}

func (d *directory) eventually(what string, done func() bool) {
	d.t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			d.t.Fatalf("never: %s; log: %s", what, d.log.text())
		}
	}
}

func shown(f *Files) []byte { return f.current.Load().Certificate[0] }

func TestReplacedFilesAreShownAndBadOnesAreNot(t *testing.T) {
	ca := certtest.New(t)
	first, second := ca.Issue(t, "first.example.com"), ca.Issue(t, "second.example.com")
	d := newDirectory(t, first)
	files := d.open()
	if !bytes.Equal(shown(files), first.TLS.Certificate[0]) {
		t.Fatal("another certificate than the file's")
	}
	// Half of a replacement: they do not belong together.
	d.write(d.cert, second.Certificate)
	d.eventually("a complaint about a pair that does not match", func() bool { return d.log.contains("last one stays in use") })
	if !bytes.Equal(shown(files), first.TLS.Certificate[0]) {
		t.Error("half of a replacement was used")
	}
	d.write(d.key, second.Key)
	d.eventually("the second certificate", func() bool { return bytes.Equal(shown(files), second.TLS.Certificate[0]) })
	for name, spoil := range map[string]func(){
		"empty":     func() { d.write(d.cert, nil) },
		"no PEM":    func() { d.write(d.cert, []byte("hello")) },
		"too large": func() { d.write(d.cert, make([]byte, maxFileBytes+1)) },
		"removed":   func() { os.Remove(d.cert) },
	} {
		spoil()
		time.Sleep(20 * time.Millisecond)
		if !bytes.Equal(shown(files), second.TLS.Certificate[0]) {
			t.Errorf("%s: the last good certificate is gone", name)
		}
	}
	third := ca.Issue(t, "third.example.com")
	d.write(d.cert, third.Certificate)
	d.write(d.key, third.Key)
	d.eventually("recovery", func() bool { return bytes.Equal(shown(files), third.TLS.Certificate[0]) })
	if d.log.contains("PRIVATE KEY") {
		t.Error("the log shows a key")
	}
}

func TestFilesThatCannotBeUsedAreRefusedAtStart(t *testing.T) {
	ca := certtest.New(t)
	pair := ca.Issue(t, "a.example.com")
	d := newDirectory(t, pair)
	d.write(d.key, ca.Issue(t, "a.example.com").Key)
	if _, err := OpenFiles(d.cert, d.key, time.Hour, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("another certificate's key was taken")
	}
	if _, err := OpenFiles(d.cert, d.key+".absent", time.Hour, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a missing key was taken")
	}
}

func TestCertificateThatEndsSoonIsComplainedAbout(t *testing.T) {
	d := newDirectory(t, certtest.New(t).IssueUntil(t, "a.example.com", time.Now().Add(24*time.Hour)))
	d.open()
	if !d.log.contains("ends soon") {
		t.Errorf("log: %s", d.log.text())
	}
}

func TestConfigRefusesOldTLS(t *testing.T) {
	d := newDirectory(t, certtest.New(t).Issue(t, "a.example.com"))
	for name, config := range map[string]*tls.Config{"files": d.open().Config(), "automatic": Automatic{Hosts: []string{"a.example.com"}, Directory: t.TempDir()}.Config()} {
		if config.MinVersion < tls.VersionTLS12 {
			t.Errorf("%s: version %x", name, config.MinVersion)
		}
	}
}

type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

func (b *lockedBuffer) contains(text string) bool {
	return bytes.Contains([]byte(b.text()), []byte(text))
}
