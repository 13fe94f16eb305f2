package witness

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

const logOrigin = "log.example.com/log/1"

var quiet = slog.New(slog.DiscardHandler)

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// testLog is a log whose leaf i is the text "leaf i", or something else in a fork.
type testLog struct {
	t      testing.TB
	key    ed25519.PrivateKey
	leaves []merkle.Hash
}

func newLog(t testing.TB, leaves int) *testLog {
	l := &testLog{t: t, key: newKey(t)}
	l.grow(leaves, "leaf")
	return l
}

func (l *testLog) grow(n int, text string) {
	for range n {
		l.leaves = append(l.leaves, merkle.LeafHash(fmt.Appendf(nil, "%s %d", text, len(l.leaves))))
	}
}

func (l *testLog) verifierKey() string {
	text, err := checkpoint.VerifierKey(logOrigin, l.key.Public().(ed25519.PublicKey))
	if err != nil {
		l.t.Fatal(err)
	}
	return text
}

// head is the signed head of a size.
func (l *testLog) head(size int64) tlog.Head {
	tree, _ := new(merkle.Tree).Grow(l.leaves[:size])
	now := time.Now().UTC().Truncate(time.Second)
	note, err := checkpoint.Sign(checkpoint.Checkpoint{Origin: logOrigin, Size: size, Root: tree.Root()}, now, l.key)
	if err != nil {
		l.t.Fatal(err)
	}
	return tlog.Head{Size: size, Root: tree.Root(), SignedAt: now, Note: note}
}

// prove is a Prove from tiles in memory.
func (l *testLog) prove(ctx context.Context, from, to int64) ([]merkle.Hash, error) {
	_, tiles := new(merkle.Tree).Grow(l.leaves[:to])
	return merkle.ConsistencyProof(ctx, from, to, func(_ context.Context, wanted []merkle.Tile) ([][]byte, error) {
		hashes := make([][]byte, len(wanted))
		for i, want := range wanted {
			for _, tile := range tiles {
				if tile.Level == want.Level && tile.Index == want.Index {
					hashes[i] = tile.Hashes
				}
			}
		}
		return hashes, nil
	})
}

func (l *testLog) proof(from, to int64) []merkle.Hash {
	proof, err := l.prove(context.Background(), from, to)
	if err != nil {
		l.t.Fatal(err)
	}
	return proof
}

// served is a witness over HTTP.
type served struct {
	*Server
	url, key string
	mu       sync.Mutex
	broken   func(http.ResponseWriter) // answers instead, if set
	asked    int
}

func (s *served) set(broken func(http.ResponseWriter)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = broken
}

func serveWitness(t testing.TB, name string, logs ...string) *served {
	t.Helper()
	server, err := NewServer(ServerConfig{Name: name, Signer: newKey(t), Logs: logs, StateDir: t.TempDir(), Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	s := &served{Server: server}
	if s.key, err = server.VerifierKey(); err != nil {
		t.Fatal(err)
	}
	listener := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		broken := s.broken
		s.asked++
		s.mu.Unlock()
		if broken != nil {
			broken(w)
			return
		}
		server.ServeHTTP(w, r)
	}))
	t.Cleanup(listener.Close)
	s.url = listener.URL
	return s
}
