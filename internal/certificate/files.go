// Package certificate keeps the TLS certificate that the service shows to its clients: read from two files, and again when
// they change ([Files]), or asked for from an ACME authority ([Automatic]). Either gives a tls.Config for a listener. New
// connections get the new certificate; those that are open go on with the one they have.
package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

const (
	// DefaultPoll is how often the files are looked at.
	DefaultPoll = 2 * time.Second
	// maxFileBytes bounds a file: a chain of ten certificates takes about 20 KiB.
	maxFileBytes = 1 << 20
	// expiryWarning is how long before its end a certificate is complained about, once a day.
	expiryWarning = 7 * 24 * time.Hour
)

// Files is a certificate chain and its key in two PEM files, which whoever renews them replaces while the service runs.
type Files struct {
	certificateFile, keyFile string
	poll                     time.Duration
	log                      *slog.Logger

	current atomic.Pointer[tls.Certificate]
	text    [2][]byte // that was looked at last, whether it could be used or not
	unread  bool      // the files could not be read at all
	warned  time.Time
}

// OpenFiles reads the certificate and its key. It fails when they cannot be used now; what is wrong with them later is
// logged, and the last good pair stays in use.
func OpenFiles(certificateFile, keyFile string, poll time.Duration, log *slog.Logger) (*Files, error) {
	f := &Files{certificateFile: certificateFile, keyFile: keyFile, poll: poll, log: log}
	if _, err := f.reload(); err != nil {
		return nil, err
	}
	f.warn()
	return f, nil
}

// Config is what a listener needs: TLS 1.2 at least, HTTP/2 and HTTP/1.1.
func (f *Files) Config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.current.Load(), nil },
	}
}

// Run looks for changes until ctx ends. Files are compared by what is in them: times lie when a volume is swapped.
func (f *Files) Run(ctx context.Context) error {
	ticker := time.NewTicker(f.poll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		changed, err := f.reload()
		switch {
		case err != nil:
			f.log.Error("certificate not reloaded, the last one stays in use", "error", err)
		case changed:
			f.log.Info("certificate reloaded", "not_after", f.current.Load().Leaf.NotAfter)
		}
		f.warn()
	}
}

// reload reads the files, and uses what is in them if it is new and whole. An error is returned once for each content:
// between the writes of two files they may not belong together for a moment.
func (f *Files) reload() (changed bool, err error) {
	certificate, err1 := readFile(f.certificateFile)
	key, err2 := readFile(f.keyFile)
	if err := errors.Join(err1, err2); err != nil {
		if f.unread { // said already
			return false, nil
		}
		f.unread = true
		return false, err
	}
	f.unread = false
	if bytes.Equal(certificate, f.text[0]) && bytes.Equal(key, f.text[1]) {
		return false, nil
	}
	f.text = [2][]byte{certificate, key}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return false, fmt.Errorf("certificate %s with key %s: %w", f.certificateFile, f.keyFile, err)
	}
	f.current.Store(&pair)
	return true, nil
}

// warn complains about a certificate that ends soon: nobody may have noticed that it is not renewed.
func (f *Files) warn() {
	notAfter := f.current.Load().Leaf.NotAfter
	if now := time.Now(); now.Add(expiryWarning).After(notAfter) && now.Sub(f.warned) >= 24*time.Hour {
		f.warned = now
		f.log.Warn("the TLS certificate ends soon: renew it", "not_after", notAfter, "file", f.certificateFile)
	}
}

func readFile(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFileBytes {
		return nil, fmt.Errorf("%s: want a regular file of at most %d bytes", name, maxFileBytes)
	}
	return os.ReadFile(name)
}
