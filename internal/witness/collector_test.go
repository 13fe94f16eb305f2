package witness

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"github.com/kapsel-dev/kapsel/internal/tlog"
	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
)

// policyOf is a policy in which so many of the witnesses make a quorum.
func policyOf(t testing.TB, quorum int, witnesses ...*served) *Policy {
	t.Helper()
	var text, names strings.Builder
	for i, w := range witnesses {
		fmt.Fprintf(&text, "witness w%d %s %s\n", i, w.key, w.url)
		fmt.Fprintf(&names, " w%d", i)
	}
	fmt.Fprintf(&text, "group all %d%s\nquorum all\n", quorum, names.String())
	policy, err := ParsePolicy(text.String())
	if err != nil {
		t.Fatal(err)
	}
	return policy
}

// stored is a Store in memory.
type stored struct {
	mu    sync.Mutex
	lines map[int64]map[string]tlog.Cosignature
}

func (s *stored) put(_ context.Context, size int64, lines []tlog.Cosignature) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines == nil {
		s.lines = make(map[int64]map[string]tlog.Cosignature)
	}
	if s.lines[size] == nil {
		s.lines[size] = make(map[string]tlog.Cosignature)
	}
	for _, line := range lines {
		s.lines[size][fmt.Sprintf("%s+%08x", line.Name, line.Hash)] = line
	}
	return nil
}

func (s *stored) await(t *testing.T, size int64, lines int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		s.mu.Lock()
		n := len(s.lines[size])
		s.mu.Unlock()
		if n == lines {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d cosignatures of size %d are stored, want %d", n, size, lines)
		}
	}
}

func start(t *testing.T, log *testLog, hold bool, policy *Policy) (*Collector, *stored) {
	t.Helper()
	store := new(stored)
	c := NewCollector(policy, hold, log.prove, store.put, quiet)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return c, store
}

func cosign(t *testing.T, c *Collector, head tlog.Head, within time.Duration) ([]tlog.Cosignature, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	return c.Cosign(ctx, head)
}

func unavailable(w http.ResponseWriter) { http.Error(w, "not now", http.StatusServiceUnavailable) }

func TestHeadIsHeldUntilTheQuorumHasCosigned(t *testing.T) {
	log := newLog(t, 700)
	one, two, three := serveWitness(t, "one.example.com", log.verifierKey()), serveWitness(t, "two.example.com", log.verifierKey()), serveWitness(t, "three.example.com", log.verifierKey())
	two.set(unavailable)
	three.set(unavailable)
	c, store := start(t, log, true, policyOf(t, 2, one, two, three))
	head := log.head(300)
	if lines, err := cosign(t, c, head, 300*time.Millisecond); !errors.Is(err, tlog.ErrNoQuorum) {
		t.Fatalf("with one of three: %v, %v", lines, err)
	}
	two.set(nil)
	lines, err := cosign(t, c, head, 10*time.Second)
	if err != nil || len(lines) != 2 {
		t.Fatalf("with two of three: %d lines, %v", len(lines), err)
	}
	checkLines(t, head, lines, one, two)
	c.Published(head)
	store.await(t, 300, 2)
	three.set(nil)
	store.await(t, 300, 3) // what comes late is stored too

	head = log.head(700)
	if lines, err = cosign(t, c, head, 10*time.Second); err != nil || len(lines) < 2 {
		t.Fatalf("the next head: %d lines, %v", len(lines), err)
	}
}

// checkLines has an independent implementation judge.
func checkLines(t *testing.T, head tlog.Head, lines []tlog.Cosignature, witnesses ...*served) {
	t.Helper()
	signed := head.Note
	for _, line := range lines {
		signed += line.Line + "\n"
	}
	for _, w := range witnesses {
		verifier, err := torchwood.NewCosignatureVerifier(w.key)
		if err != nil {
			t.Fatal(err)
		}
		if opened, err := note.Open([]byte(signed), note.VerifierList(verifier)); err != nil || len(opened.Sigs) != 1 {
			t.Errorf("%s has not cosigned: %v", w.Name, err)
		}
	}
}

func TestWithoutHoldHeadsAreNotDelayed(t *testing.T) {
	log := newLog(t, 50)
	w := serveWitness(t, "one.example.com", log.verifierKey())
	w.set(unavailable)
	c, store := start(t, log, false, policyOf(t, 1, w))
	head := log.head(20)
	began := time.Now()
	if lines, err := cosign(t, c, head, 10*time.Second); err != nil || lines != nil || time.Since(began) > time.Second {
		t.Fatalf("%v, %v after %v", lines, err, time.Since(began))
	}
	c.Published(head)
	w.set(nil)
	store.await(t, 20, 1)
}

// A node takes over: its collector does not know what the witness has seen, and is told.
func TestCollectorLearnsWhatAWitnessKnows(t *testing.T) {
	log := newLog(t, 500)
	w := serveWitness(t, "one.example.com", log.verifierKey())
	first, _ := start(t, log, true, policyOf(t, 1, w))
	for _, size := range []int64{10, 300} {
		if _, err := cosign(t, first, log.head(size), 10*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	second, _ := start(t, log, true, policyOf(t, 1, w))
	if _, err := cosign(t, second, log.head(300), 10*time.Second); err != nil { // the same tree, signed again
		t.Fatal(err)
	}
	if _, err := cosign(t, second, log.head(450), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	// The first one wakes up late, with a tree that is smaller than what the witness has seen.
	_, err := cosign(t, first, log.head(400), time.Second)
	var ahead *AheadError
	if !errors.Is(err, tlog.ErrNoQuorum) || !errors.As(err, &ahead) || ahead.Size != 450 || first.Ahead() != 450 {
		t.Errorf("a late head: %v", err)
	}
	if _, err := cosign(t, first, log.head(500), 10*time.Second); err != nil {
		t.Errorf("a head beyond: %v", err)
	}
}

// A proxy before a witness adds a charset to whatever is text. A node that was started anew learns the witness's size all the same.
func TestConflictBehindAProxyIsUnderstood(t *testing.T) {
	log := newLog(t, 30)
	w := serveWitness(t, "one.example.com", log.verifierKey())
	first, _ := start(t, log, true, policyOf(t, 1, w))
	if _, err := cosign(t, first, log.head(20), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		w.ServeHTTP(answer, r)
		out.Header().Set("Content-Type", answer.Header().Get("Content-Type")+"; charset=utf-8")
		out.WriteHeader(answer.Code)
		answer.Body.WriteTo(out)
	}))
	t.Cleanup(proxy.Close)
	w.url = proxy.URL
	second, _ := start(t, log, true, policyOf(t, 1, w))
	if _, err := cosign(t, second, log.head(30), 10*time.Second); err != nil {
		t.Error(err)
	}
}

// A fork is not cosigned, whatever the collector does.
func TestForkGetsNoQuorum(t *testing.T) {
	log := newLog(t, 20)
	w := serveWitness(t, "one.example.com", log.verifierKey())
	c, _ := start(t, log, true, policyOf(t, 1, w))
	if _, err := cosign(t, c, log.head(20), 10*time.Second); err != nil {
		t.Fatal(err)
	}
	fork := &testLog{t: t, key: log.key, leaves: log.leaves[:10:10]}
	fork.grow(30, "fork")
	forked, _ := start(t, fork, true, policyOf(t, 1, w))
	for _, size := range []int64{20, 40} {
		if lines, err := cosign(t, forked, fork.head(size), time.Second); !errors.Is(err, tlog.ErrNoQuorum) {
			t.Errorf("fork of %d leaves: %v, %v", size, lines, err)
		}
	}
}

func TestHostileAnswersAreNotStored(t *testing.T) {
	log := newLog(t, 20)
	answers := map[string]func(http.ResponseWriter){
		"nothing":      func(http.ResponseWriter) {},
		"no signature": func(w http.ResponseWriter) { io.WriteString(w, "hello\n") },
		"endless": func(w http.ResponseWriter) {
			io.WriteString(w, strings.Repeat("— one.example.com AAAAAAAAAAAA\n", 5000))
		},
		"endless size":  func(w http.ResponseWriter) { size(w, strings.Repeat("9", 100)) },
		"negative size": func(w http.ResponseWriter) { size(w, "-1\n") },
		"another size":  func(w http.ResponseWriter) { size(w, "7\n") },
		"a redirect":    func(w http.ResponseWriter) { w.Header().Set("Location", "/x"); w.WriteHeader(http.StatusFound) },
		"another protocol": func(w http.ResponseWriter) {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "x")
			w.WriteHeader(http.StatusSwitchingProtocols)
			if conn, _, err := http.NewResponseController(w).Hijack(); err != nil {
				t.Error(err)
			} else {
				t.Cleanup(func() { conn.Close() })
			}
		},
		"a broken line":    func(w http.ResponseWriter) { io.WriteString(w, "— one.example.com !!!!\n") },
		"another's line":   func(w http.ResponseWriter) { io.WriteString(w, "— two.example.com AAAAAAAAAAAA\n") },
		"line without end": func(w http.ResponseWriter) { io.WriteString(w, "— one.example.com AAAAAAAAAAAA") },
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := serveWitness(t, "one.example.com", log.verifierKey())
			w.set(answer)
			c, store := start(t, log, true, policyOf(t, 1, w))
			if lines, err := cosign(t, c, log.head(20), 200*time.Millisecond); !errors.Is(err, tlog.ErrNoQuorum) {
				t.Fatalf("%v, %v", lines, err)
			}
			c.Published(log.head(20))
			if len(store.lines) != 0 {
				t.Errorf("stored %v", store.lines)
			}
			w.set(nil)
			if _, err := cosign(t, c, log.head(20), 10*time.Second); err != nil {
				t.Errorf("when it answers rightly: %v", err)
			}
		})
	}
}

func size(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", sizeContentType)
	w.WriteHeader(http.StatusConflict)
	io.WriteString(w, text)
}

func TestWrongCosignatureIsRefusedAndUnknownKindsAreKept(t *testing.T) {
	log := newLog(t, 20)
	w := serveWitness(t, "one.example.com", log.verifierKey())
	client := policyOf(t, 1, w).clients[0]
	head := log.head(20)
	line, err := w.addCheckpoint(request{note: head.Note}.encode())
	if err != nil {
		t.Fatal(err)
	}
	mldsa := "— one.example.com " + base64.StdEncoding.EncodeToString(append([]byte{1, 2, 3, 4}, make([]byte, 8+2420)...)) + "\n"
	lines, err := client.read(head.Note, mldsa+line)
	if err != nil || len(lines) != 2 || lines[0].VerifierKey != "" || lines[1].VerifierKey != w.key {
		t.Errorf("a line of an unknown kind beside a known one: %+v, %v", lines, err)
	}
	if lines, err := client.read(head.Note, mldsa); err != nil || len(lines) != 1 {
		t.Errorf("only a line of an unknown kind: %+v, %v", lines, err)
	}
	if lines, err := client.read(head.Note, mldsa+strings.Replace(mldsa, "AQID", "BQID", 1)+line); err != nil || len(lines) != 2 {
		t.Errorf("two lines of unknown kinds: %d are kept, %v", len(lines), err)
	}
	if lines, err := client.read(head.Note, strings.Replace(mldsa, "AQIDBAAA", "AQID\rBAAA", 1)+line); err == nil {
		t.Errorf("a line that readers of notes refuse is kept: %+v", lines)
	}
	if _, err := client.read(log.head(19).Note, line); err == nil {
		t.Error("a cosignature of another head was taken")
	}
	if _, err := client.read(head.Note, line+line); err == nil {
		t.Error("two cosignatures of one key were taken")
	}
}

// Verifiers refuse packages that have a cosignature of a time that cannot be, so a witness with a strange clock must not get into one.
func TestCosignatureOfAnImpossibleTimeIsRefused(t *testing.T) {
	log := newLog(t, 20)
	w := serveWitness(t, "one.example.com", log.verifierKey())
	client := policyOf(t, 1, w).clients[0]
	head := log.head(20)
	text, _, _ := strings.Cut(head.Note, "\n\n")
	now := time.Now()
	for at, possible := range map[time.Time]bool{now: true, time.Unix(now.UnixMilli(), 0): false, time.Unix(0, 0): false, time.Unix(1<<60, 0): false} {
		line, err := checkpoint.Cosign(text+"\n", "one.example.com", w.Signer, at)
		if err != nil {
			t.Fatal(err)
		}
		if lines, err := client.read(head.Note, line); (err == nil) != possible {
			t.Errorf("at %d seconds: %+v, %v", at.Unix(), lines, err)
		}
	}
}

// The name of a witness's key is whatever signed notes can have, also a URL, and so are those of others in its answer.
func TestWitnessesHaveTheNamesOfSignedNotes(t *testing.T) {
	head := newLog(t, 20).head(20)
	text, _, _ := strings.Cut(head.Note, "\n\n")
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	var lines string
	for _, name := range []string{"https://witness.example.com/", "öst", "a:b@c", strings.Repeat("w", 300)} {
		key := checkpoint.CosignerKey(name, private.Public().(ed25519.PublicKey))
		p, err := ParsePolicy("witness one " + key + " https://one.example.com/\nquorum one\n")
		if err != nil {
			t.Fatal(err)
		}
		line, err := checkpoint.Cosign(text+"\n", name, private, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		lines += line
		if got, err := p.clients[0].read(head.Note, lines); err != nil || len(got) != 1 || got[0].VerifierKey != key {
			t.Errorf("%.40q: %+v, %v", name, got, err)
		}
	}
}

func TestBadPoliciesAreRefused(t *testing.T) {
	w := serveWitness(t, "one.example.com", newLog(t, 1).verifierKey())
	witness := "witness one " + w.key + " https://one.example.com/\n"
	for name, text := range map[string]string{
		"empty":          "",
		"no quorum":      witness,
		"no URL":         "witness one " + w.key + "\nquorum one\n",
		"another scheme": "witness one " + w.key + " ftp://one\nquorum one\n",
		"no witness":     "quorum none\n",
		"unknown group":  witness + "quorum two\n",
		"too many of":    witness + "group g 2 one\nquorum g\n",
		"key twice":      witness + strings.Replace(witness, "witness one", "witness two", 1) + "quorum one\n",
		"counted twice":  witness + "group g 2 one one\nquorum g\n",
		"in two groups":  witness + "group g any one\ngroup h any one\ngroup i all g h\nquorum i\n",
		"called none":    strings.Replace(witness, "witness one", "witness none", 1) + "quorum none\n",
		"spelled twice":  spelledTwice(),
		"a log's key":    "witness one " + newLog(t, 1).verifierKey() + " https://one.example.com/\nquorum one\n",
		"a log":          witness + "log " + newLog(t, 1).verifierKey() + "\nquorum one\n",
		"nonsense":       "hello\n",
		"not UTF-8":      strings.Replace(witness, "witness one", "witness o\xffne", 1) + "quorum none\n",
	} {
		if _, err := ParsePolicy(text); err == nil {
			t.Errorf("%s: was accepted", name)
		}
	}
	if p, err := ParsePolicy("# ours\n" + witness + "quorum none # only gather\n"); err != nil || p.met(nil) != nil {
		t.Errorf("no quorum wanted: %v", err)
	}
	if _, err := ParsePolicy(strings.ReplaceAll("\n"+witness+"quorum none\n", "\n", "\r\n")); err != nil {
		t.Errorf("lines that end in CR LF: %v", err)
	}
}

// aKey is a witness's, and the same with its id in upper case, which torchwood takes and verifiers of packages do not.
func aKey() (text, upper string) {
	for seed := byte(0); ; seed++ {
		private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
		text = checkpoint.CosignerKey("one.example.com", private.Public().(ed25519.PublicKey))
		parts := strings.SplitN(text, "+", 3)
		if upper = parts[0] + "+" + strings.ToUpper(parts[1]) + "+" + parts[2]; upper != text {
			return text, upper
		}
	}
}

func spelledTwice() string {
	text, upper := aKey()
	return "witness one " + text + " https://one.example.com/\nwitness two " + upper + " https://one.example.com/\ngroup g 2 one two\nquorum g\n"
}

func TestWitnessKeyHasOneSpelling(t *testing.T) {
	text, upper := aKey()
	p, err := ParsePolicy("witness one " + upper + " https://one.example.com/\nquorum one\n")
	if err != nil || p.clients[0].text != text {
		t.Errorf("%+v, %v, want the key %s", p, err, text)
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add("witness one one.example+8b2b3a0f+BCcf https://one.example/\ngroup g any one\nquorum g\n")
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := ParsePolicy(text); err == nil && (len(p.clients) == 0 || len(p.clients) > maxWitnesses) {
			t.Errorf("%d witnesses", len(p.clients))
		}
	})
}

// Heads come faster than witnesses answer: some must get their quorum all the same.
func TestSlowWitnessesCosignSomeOfManyHeads(t *testing.T) {
	log := newLog(t, 1000)
	slow := func(name string) *served {
		w := serveWitness(t, name, log.verifierKey())
		listener := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, r *http.Request) {
			time.Sleep(200 * time.Millisecond)
			w.ServeHTTP(answer, r)
		}))
		t.Cleanup(listener.Close)
		w.url = listener.URL
		return w
	}
	c, store := start(t, log, false, policyOf(t, 2, slow("one.example.com"), slow("two.example.com")))
	whole := func() (heads int) {
		store.mu.Lock()
		defer store.mu.Unlock()
		for _, lines := range store.lines {
			if len(lines) == 2 {
				heads++
			}
		}
		return heads
	}
	for size := int64(1); whole() < 3; size++ {
		if size > int64(len(log.leaves)) {
			t.Fatalf("of %d heads %d have both cosignatures", size-1, whole())
		}
		head := log.head(size)
		if _, err := c.Cosign(t.Context(), head); err != nil {
			t.Fatal(err)
		}
		c.Published(head)
		time.Sleep(20 * time.Millisecond)
	}
}
