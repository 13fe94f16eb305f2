package witness

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/torchwood"
	"golang.org/x/mod/sumdb/note"

	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
)

func post(t testing.TB, url, body string) (status int, contentType, answer string) {
	t.Helper()
	response, err := http.Post(url+addCheckpointPath, "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header.Get("Content-Type"), string(data)
}

func TestWitnessCosignsALogThatGrows(t *testing.T) {
	log := newLog(t, 600)
	w := serveWitness(t, "witness.example.com", log.verifierKey())
	verifier, err := torchwood.NewCosignatureVerifier(w.key)
	if err != nil {
		t.Fatal(err)
	}
	var old int64
	for _, size := range []int64{0, 0, 1, 1, 7, 255, 256, 257, 600, 600} {
		head := log.head(size)
		r := request{old: old, note: head.Note}
		if old > 0 && old < size {
			r.proof = log.proof(old, size)
		}
		status, _, answer := post(t, w.url, r.encode())
		if status != http.StatusOK {
			t.Fatalf("size %d: status %d, %s", size, status, answer)
		}
		// An independent implementation verifies it.
		opened, err := note.Open([]byte(head.Note+answer), note.VerifierList(verifier))
		if err != nil || len(opened.Sigs) != 1 {
			t.Fatalf("size %d: %v", size, err)
		}
		if _, err := torchwood.CosignatureTimestamp(opened.Sigs[0]); err != nil {
			t.Error(err)
		}
		old = size
	}
}

func TestWitnessAnswersAsTheSpecificationSays(t *testing.T) {
	log := newLog(t, 40)
	fork := &testLog{t: t, key: log.key, leaves: append(log.leaves[:5:5], log.leaves[20:40]...)}
	stranger := newLog(t, 20)
	w := serveWitness(t, "witness.example.com", log.verifierKey())
	if status, _, answer := post(t, w.url, request{note: log.head(10).Note}.encode()); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	ten, twenty := log.head(10).Note, log.head(20).Note
	wrongOrigin := strings.Replace(twenty, logOrigin+"\n", "other.example.com/log/1\n", 1)
	emptyWithRoot := func() string {
		signed, err := checkpoint.Sign(checkpoint.Checkpoint{Origin: logOrigin, Root: log.leaves[0]}, log.head(1).SignedAt, log.key)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	proof := request{old: 10, proof: log.proof(10, 20), note: twenty}.encode()
	hash := base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n"
	for name, test := range map[string]struct {
		body   string
		status int
	}{
		"empty":                        {"", 400},
		"no old line":                  {strings.TrimPrefix(proof, "old 10\n"), 400},
		"old not canonical":            {strings.Replace(proof, "old 10", "old 010", 1), 400},
		"old negative":                 {strings.Replace(proof, "old 10", "old -1", 1), 400},
		"old beyond int64":             {strings.Replace(proof, "old 10", "old 99999999999999999999", 1), 400},
		"proof line short":             {strings.Replace(proof, "old 10\n", "old 10\nAAAA\n", 1), 400},
		"proof of 64 lines":            {"old 10\n" + strings.Repeat(hash, 64) + "\n" + twenty, 400},
		"no checkpoint":                {"old 10\n\n", 404},
		"origin only":                  {"old 10\n\n" + logOrigin + "\n", 400},
		"unknown origin":               {"old 10\n\n" + wrongOrigin, 404},
		"signed by a stranger":         {request{old: 10, note: stranger.head(20).Note}.encode(), 403},
		"signature broken":             {strings.Replace(proof, twenty, strings.Replace(twenty, "\n20\n", "\n21\n", 1), 1), 403},
		"old beyond the checkpoint":    {request{old: 21, note: twenty}.encode(), 400},
		"old behind":                   {request{old: 9, proof: log.proof(9, 20), note: twenty}.encode(), 409},
		"old zero again":               {request{note: twenty}.encode(), 409},
		"old ahead":                    {request{old: 15, proof: log.proof(15, 20), note: twenty}.encode(), 409},
		"no proof":                     {request{old: 10, note: twenty}.encode(), 422},
		"wrong proof":                  {request{old: 10, proof: log.proof(9, 20), note: twenty}.encode(), 422},
		"proof where there is none":    {request{old: 10, proof: log.proof(9, 10), note: ten}.encode(), 422},
		"fork of the same size":        {request{old: 10, note: fork.head(10).Note}.encode(), 409},
		"fork":                         {request{old: 10, proof: fork.proof(10, 20), note: fork.head(20).Note}.encode(), 422},
		"rolled back":                  {request{old: 5, note: log.head(5).Note}.encode(), 409},
		"empty tree with another root": {request{note: emptyWithRoot()}.encode(), 409},
		"too large":                    {proof + strings.Repeat("x", maxRequestBytes), 413},
	} {
		status, contentType, answer := post(t, w.url, test.body)
		if status != test.status {
			t.Errorf("%s: status %d, %s, want %d", name, status, answer, test.status)
		}
		conflict := status == http.StatusConflict && name != "fork of the same size"
		if conflict != (contentType == sizeContentType) || conflict && answer != "10\n" {
			t.Errorf("%s: answer %q of type %q", name, answer, contentType)
		}
		if strings.Contains(answer, "— ") {
			t.Errorf("%s: was cosigned", name)
		}
	}
	if response, err := http.Get(w.url + addCheckpointPath); err != nil || response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %v", err)
	}
	// After all that the witness is where it was.
	if status, _, answer := post(t, w.url, proof); status != http.StatusOK {
		t.Errorf("the right request afterwards: %d, %s", status, answer)
	}
	fresh := serveWitness(t, "witness.example.com", log.verifierKey())
	if status, _, _ := post(t, fresh.url, request{note: emptyWithRoot()}.encode()); status != http.StatusUnprocessableEntity {
		t.Errorf("an empty tree with another root: %d", status)
	}
}

// Checkpoints and proofs of a log of others' making, as a witness was sent them.
func TestWitnessTakesASigsumLog(t *testing.T) {
	const origin = "sigsum.org/v1/tree/4d6d8825a6bb689d459628312889dfbb0bcd41b5211d9e1ce768b0ff0309e562"
	public := [32]byte{0xff, 0xdc, 0x2d, 0x4d, 0x98, 0xe4, 0x12, 0x4d, 0x3f, 0xea, 0xf7, 0x88, 0xc0, 0xc2, 0xf9, 0xab,
		0xfd, 0x79, 0x60, 0x83, 0xd1, 0xf0, 0x49, 0x54, 0x37, 0xf3, 0x02, 0xec, 0x79, 0xcf, 0x10, 0x0f}
	key, err := note.NewEd25519VerifierKey(origin, public[:])
	if err != nil {
		t.Fatal(err)
	}
	w := serveWitness(t, "witness.example.com", key)
	signed := func(rest string) string { return strings.ReplaceAll(rest, "ORIGIN", origin) }
	for _, step := range []struct {
		body   string
		status int
		answer string
	}{
		{"old 0\n\nORIGIN\n1\nKgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n— ORIGIN UgIom7fPZTqpxWWhyjWduBvTvGVqsokMbqTArsQilegKoFBJQjUFAmQ0+YeSPM3wfUQMFSzVnnNuWRTYrajXpNUbIQY=\n", 200, ""},
		{"old 1\nKgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n+fUDV+k970B4I3uKrqJM4aP1lloPZP8mvr2Z4wRw2LI=\nKgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nORIGIN\n5\nQrtXrQZCCvpIgsSmOsah7HdICzMLLyDfxToMql9WTjY=\n\n" +
			"— ORIGIN UgIomw/EOJmWi0i1FQsOj+etB7F8IccFam/jgd6wzRns4QPVmyEZtdvl1U2KEmLOZ/ASRcWJi0tW90dJWAShei7sDww=\n", 200, ""},
		{"old 1\nKgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nKgIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\nORIGIN\n3\nRcCI1Nk56ZcSmIEfIn0SleqtV7uvrlXNccFx595Iwl0=\n\n" +
			"— ORIGIN UgIom2VbtIcdFbwFAy1n7s6IkAxIY6J/GQOTuZF2ORV39d75cbAj2aQYwyJre36kezNobZs4SUUdrcawfAB8WVrx6go=\n", 409, "5\n"},
	} {
		status, _, answer := post(t, w.url, signed(step.body))
		if status != step.status || step.answer != "" && answer != step.answer {
			t.Errorf("status %d, %q, want %d, %q", status, answer, step.status, step.answer)
		}
	}
}

// Of two forks that are submitted at the same time, one is cosigned; and a restart does not forget which.
func TestWitnessNeverCosignsTwoForks(t *testing.T) {
	log := newLog(t, 10)
	forks := make([]*testLog, 8)
	w := serveWitness(t, "witness.example.com", log.verifierKey())
	if status, _, answer := post(t, w.url, request{note: log.head(10).Note}.encode()); status != http.StatusOK {
		t.Fatal(status, answer)
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	cosigned := map[int]int{}
	for i := range forks {
		forks[i] = &testLog{t: t, key: log.key, leaves: log.leaves[:10:10]}
		forks[i].grow(5, fmt.Sprintf("fork %d", i))
		body := request{old: 10, proof: forks[i].proof(10, 15), note: forks[i].head(15).Note}.encode()
		group.Go(func() {
			status, _, _ := post(t, w.url, body)
			mu.Lock()
			defer mu.Unlock()
			cosigned[status]++
		})
	}
	group.Wait()
	if cosigned[http.StatusOK] != 1 || cosigned[http.StatusConflict] != len(forks)-1 {
		t.Fatalf("answers by status: %v", cosigned)
	}
	again, err := NewServer(w.ServerConfig)
	if err != nil {
		t.Fatal(err)
	}
	cosigned = map[int]int{}
	for _, fork := range forks {
		_, err := again.addCheckpoint(request{old: 15, note: fork.head(15).Note}.encode())
		if err == nil {
			cosigned[http.StatusOK]++
		}
	}
	if cosigned[http.StatusOK] != 1 {
		t.Errorf("after a restart %d forks are cosigned", cosigned[http.StatusOK])
	}
}

func TestDamagedStateIsNotAnEmptyTree(t *testing.T) {
	log := newLog(t, 3)
	w := serveWitness(t, "witness.example.com", log.verifierKey())
	if _, err := w.addCheckpoint(request{note: log.head(3).Note}.encode()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.state.path(logOrigin), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := post(t, w.url, request{note: log.head(3).Note}.encode()); status != http.StatusInternalServerError {
		t.Errorf("status %d", status)
	}
	if _, err := NewServer(w.ServerConfig); err == nil || !strings.Contains(err.Error(), filepath.Base(w.state.path(logOrigin))) {
		t.Errorf("a start: %v, want an error that names the file", err)
	}
}

func TestStateDirectoryIsForOneProcess(t *testing.T) {
	dir := t.TempDir()
	unlock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); err == nil {
		t.Error("locked twice")
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if unlock, err = Lock(dir); err != nil {
		t.Error(err)
	} else {
		unlock()
	}
}

func TestKeyOfALogCanChange(t *testing.T) {
	log := newLog(t, 20)
	next := &testLog{t: t, key: newKey(t), leaves: log.leaves}
	w := serveWitness(t, "witness.example.com", log.verifierKey(), next.verifierKey())
	for i, head := range []string{log.head(10).Note, next.head(10).Note} {
		r := request{old: int64(10 * i), note: head}
		if status, _, answer := post(t, w.url, r.encode()); status != http.StatusOK {
			t.Errorf("key %d: %d, %s", i, status, answer)
		}
	}
}

func FuzzAddCheckpoint(f *testing.F) {
	log := newLog(f, 20)
	w := serveWitness(f, "witness.example.com", log.verifierKey())
	if _, err := w.addCheckpoint(request{note: log.head(10).Note}.encode()); err != nil {
		f.Fatal(err)
	}
	f.Add(request{old: 10, proof: log.proof(10, 20), note: log.head(20).Note}.encode()[:100])
	f.Add(request{old: 10, note: log.head(10).Note}.encode())
	f.Add("old 10\n\n" + logOrigin + "\n10\nAAAA\n\n— x AAAA\n")
	f.Fuzz(func(t *testing.T, body string) {
		lines, err := w.addCheckpoint(body)
		if r, parsed := parseRequest(body); parsed == nil && r.encode() != body {
			t.Errorf("%q was read as %q", body, r.encode())
		}
		if (lines == "") == (err == nil) {
			t.Errorf("cosignature %q with error %v", lines, err)
		}
	})
}
