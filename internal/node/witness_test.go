package node

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/witness"
)

// Two operators, each with a service and a witness for the other's log, over HTTP. No head is published without the other's
// cosignature, while webhooks are taken and delivered all the same.
func TestTwoServicesCosignEachOther(t *testing.T) {
	type operator struct {
		*rig
		origin, key, witnessKey, witnessURL string
		node                                *Node
	}
	operators := []*operator{{origin: "one.example.com/log/1"}, {origin: "two.example.com/log/1"}}
	for _, o := range operators {
		o.rig = newRig(t)
		key, err := tlog.OpenKeyFile(filepath.Join(o.state, "log.key"))
		if err != nil {
			t.Fatal(err)
		}
		if o.key, err = key.VerifierKey(o.origin); err != nil {
			t.Fatal(err)
		}
	}
	for i, o := range operators {
		key, err := tlog.OpenKeyFile(filepath.Join(t.TempDir(), "witness.key"))
		if err != nil {
			t.Fatal(err)
		}
		server, err := witness.NewServer(witness.ServerConfig{Name: fmt.Sprintf("witness.%d.example.com", i), Signer: key.Signer(),
			Logs: []string{operators[1-i].key}, StateDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if o.witnessKey, err = server.VerifierKey(); err != nil {
			t.Fatal(err)
		}
		listener := httptest.NewServer(server)
		t.Cleanup(listener.Close)
		o.witnessURL = listener.URL
	}
	for i, o := range operators {
		other := operators[1-i]
		policy, err := witness.ParsePolicy(fmt.Sprintf("witness other %s %s\nquorum other\n", other.witnessKey, other.witnessURL))
		if err != nil {
			t.Fatal(err)
		}
		config := o.config()
		config.LogOrigin, config.Witnesses, config.WitnessHold = o.origin, policy, true
		o.node = o.start(config)
		o.configure(5 * time.Second)
		if err := o.node.Routes().Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for i, o := range operators {
		for n := range 30 {
			if status, _ := o.post(o.node, fmt.Sprint(n), []byte(`{}`)); status != http.StatusAccepted {
				t.Fatalf("%s: status %d", o.origin, status)
			}
		}
		verifiers := []note.Verifier{}
		logKey, err := note.NewVerifier(o.key)
		if err != nil {
			t.Fatal(err)
		}
		cosigner, err := torchwood.NewCosignatureVerifier(operators[1-i].witnessKey)
		if err != nil {
			t.Fatal(err)
		}
		verifiers = append(verifiers, logKey, cosigner)
		for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
			response, err := http.Get(o.node.URL() + "/log/1/checkpoint")
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			opened, err := note.Open(text, note.VerifierList(verifiers...))
			var c torchwood.Checkpoint
			if err == nil {
				c, err = torchwood.ParseCheckpoint(opened.Text)
			}
			if err == nil && c.N >= 30 {
				if len(opened.Sigs) != 2 {
					t.Errorf("%s: published without both signatures:\n%s", o.origin, text)
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: no head of 30 leaves: %v\n%s", o.origin, err, text)
			}
		}
	}
}

// witnessed starts a witness of the rig's log and makes it the whole policy of a node. While it is away it answers 503.
func (r *rig) witnessed(c *Config) (away *atomic.Bool) {
	r.t.Helper()
	verifierKey := func(path string) (*tlog.Key, string) {
		key, err := tlog.OpenKeyFile(path)
		if err != nil {
			r.t.Fatal(err)
		}
		text, err := key.VerifierKey(c.LogOrigin)
		if err != nil {
			r.t.Fatal(err)
		}
		return key, text
	}
	_, logKey := verifierKey(filepath.Join(r.state, "log.key"))
	key, _ := verifierKey(filepath.Join(r.t.TempDir(), "witness.key"))
	server, err := witness.NewServer(witness.ServerConfig{Name: "other.example.com", Signer: key.Signer(), Logs: []string{logKey}, StateDir: r.t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		r.t.Fatal(err)
	}
	away = new(atomic.Bool)
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if away.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		server.ServeHTTP(w, request)
	}))
	r.t.Cleanup(listener.Close)
	witnessKey, err := server.VerifierKey()
	if err == nil {
		c.Witnesses, err = witness.ParsePolicy(fmt.Sprintf("witness other %s %s\nquorum other\n", witnessKey, listener.URL))
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return away
}
