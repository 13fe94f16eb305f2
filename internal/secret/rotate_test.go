package secret_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/gob"
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/secret"
)

// Two nodes share a file. At each step of a rotation each opens what the other seals, without a restart.
func TestRunningKeyringsFollowARotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyset")
	nodes := []*secret.Keyring{open(t, path), open(t, path)}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, node := range nodes {
		running.Go(func() { node.Run(ctx) })
	}
	defer running.Wait()
	defer cancel()
	before := seal(t, nodes[0], hidden)
	old := nodes[0].Primary()
	check := func(step string) {
		t.Helper()
		for i, node := range nodes {
			for _, sealed := range [][]byte{before, seal(t, nodes[1-i], hidden)} {
				if got, err := node.Unseal(sealed, place); err != nil || string(got.Reveal()) != hidden {
					t.Fatalf("%s: node %d: %v", step, i, err)
				}
			}
		}
	}
	prepared, err := secret.Prepare(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := secret.Prepare(path, nil); err != nil || again != prepared {
		t.Errorf("a second preparation added %d after %d (%v)", again, prepared, err)
	}
	check("prepared")
	if promoted, err := secret.Promote(path, nil); err != nil || promoted != prepared {
		t.Fatalf("promoted %d, want %d (%v)", promoted, prepared, err)
	}
	check("promoted")
	for deadline := time.Now().Add(20 * time.Second); nodes[0].Primary() != prepared || nodes[1].Primary() != prepared; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the nodes never took the new key over")
		}
	}
	check("taken over")
	if id, ok := secret.KeyID(seal(t, nodes[0], hidden)); !ok || id != prepared {
		t.Errorf("sealed under %d, want %d", id, prepared)
	}
	if id, ok := secret.KeyID(before); !ok || id != old {
		t.Errorf("the earlier one was sealed under %d, want %d", id, old)
	}
	if removed, err := secret.Prune(path, nil, []uint32{old}); err != nil || len(removed) > 0 {
		t.Errorf("removed %v, which is in use (%v)", removed, err)
	}
	if removed, err := secret.Prune(path, nil, nil); err != nil || !slices.Equal(removed, []uint32{old}) {
		t.Errorf("removed %v, want %d (%v)", removed, old, err)
	}
	if _, err := open(t, path).Unseal(before, place); err == nil {
		t.Error("what was pruned still opens")
	}
	if _, err := secret.Promote(path, nil); err == nil {
		t.Error("nothing was prepared, and something promoted")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
}

// A key that another node uses already is looked for at once, not at the next look.
func TestUnknownKeyIsLookedForInTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyset")
	stale := open(t, path)
	addPrimaryKey(t, path)
	sealed := seal(t, open(t, path), hidden)
	time.Sleep(secret.ReloadInterval/10 + 10*time.Millisecond)
	if _, err := stale.Unseal(sealed, place); err != nil {
		t.Error(err)
	}
}

func TestTwoChangesAtOnceAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyset")
	open(t, path)
	if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := secret.Prepare(path, nil); err == nil || !strings.Contains(err.Error(), path+".lock") {
		t.Errorf("error %v, want one that names the lock", err)
	}
}

func TestKeysetOfTheEnvironmentOpensTheSame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyset")
	sealed := seal(t, open(t, path), hidden)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := secret.Decode(base64.StdEncoding.EncodeToString(text)+"\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Unseal(sealed, place); err != nil {
		t.Error(err)
	}
	for _, wrong := range []string{"", "!", string(text), base64.StdEncoding.EncodeToString([]byte(hidden))} {
		if _, err := secret.Decode(wrong, nil); err == nil || strings.Contains(err.Error(), hidden) {
			t.Errorf("%.10q: %v", wrong, err)
		}
	}
}

// Encoders that know nothing of the type's methods refuse it, or write what it prints as.
func TestOtherEncodersDoNotShowASecret(t *testing.T) {
	s := secret.New([]byte(hidden))
	var out bytes.Buffer
	_ = gob.NewEncoder(&out).Encode(struct{ S secret.Secret }{s})
	_ = xml.NewEncoder(&out).Encode(struct{ S secret.Secret }{s})
	if bytes.Contains(out.Bytes(), []byte(hidden)) {
		t.Errorf("shown: %q", out.Bytes())
	}
}
