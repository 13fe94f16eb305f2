package node

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
)

// The log's key changes under a running service: webhooks go on, heads are signed by both keys without a restart, and the
// database is sound.
func TestKeyOfARunningServiceChanges(t *testing.T) {
	r := newRig(t)
	config := r.config()
	n := r.start(config)
	r.configure(5 * time.Second)
	if err := n.Routes().Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	post := func(name string) {
		t.Helper()
		for i := range 12 {
			if status, _ := r.post(n, fmt.Sprint(name, i), []byte(`{}`)); status != http.StatusAccepted {
				t.Fatalf("status %d", status)
			}
		}
	}
	post("before")
	next, err := tlog.OpenKeyFile(filepath.Join(r.state, "log.next.key"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := tlog.OpenExistingKeys(t.Context(), r.state, nil)
	if err != nil {
		t.Fatal(err)
	}
	index, err := tlog.Rotate(t.Context(), n.DB().Engine(), logID, config.LogOrigin, keys, next, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	post("after")
	both := func(n *Node) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
			response, err := http.Get(n.URL() + "/log/1/checkpoint")
			if err != nil {
				t.Fatal(err)
			}
			note, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			c, _, byNext := checkpoint.Open(string(note), config.LogOrigin, next.Public())
			_, _, byOld := checkpoint.Open(string(note), config.LogOrigin, keys.First().Public())
			if byNext == nil && byOld == nil && c.Size > index+12 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("no head that both keys have signed:\n%s", note)
			}
		}
	}
	both(n)
	if text, err := n.VerifierKey(t.Context()); err != nil {
		t.Error(err)
	} else if want, _ := next.VerifierKey(config.LogOrigin); text != want {
		t.Errorf("the node's key is %s, want %s", text, want)
	}
	r.stop(n)
	both(r.start(config))
	r.settled(nil)
}
