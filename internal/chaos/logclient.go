package chaos

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8 // C2SP tlog-tiles

// LogClient reads a served log with golang.org/x/mod/sumdb, the code that the go command checks modules with: nothing of
// this project has a part in what it finds.
type LogClient struct {
	URL string

	public ed25519.PublicKey
	client *http.Client
}

// newLogClient trusts the key in a file (PEM, PKCS #8).
func newLogClient(t testing.TB, url, keyFile string) *LogClient {
	t.Helper()
	text, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatalf("read the log's key: %v", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s holds no PEM block", keyFile)
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatalf("parse the log's key: %v", err)
	}
	return &LogClient{
		URL: url, public: private.(ed25519.PrivateKey).Public().(ed25519.PublicKey),
		client: &http.Client{Timeout: 10 * time.Second},
	}
}

// Checkpoint is a signed tree head whose signature was checked.
type Checkpoint struct {
	Origin string
	Tree   tlog.Tree
}

// Checkpoint fetches the log's checkpoint. A node may be ready before it has signed the first head of a new log.
func (c *LogClient) Checkpoint(t testing.TB) Checkpoint {
	t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		signed, err := c.get("/checkpoint")
		if err == nil {
			return c.open(t, string(signed))
		}
		if !errors.Is(err, errNotFound) || time.Since(began) > startPatience {
			t.Fatal(err)
		}
	}
}

var errNotFound = errors.New("not found")

// AwaitLeaves returns the first checkpoint that is seen to cover n leaves.
func (c *LogClient) AwaitLeaves(t testing.TB, n int64, patience time.Duration) Checkpoint {
	t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		checkpoint := c.Checkpoint(t)
		if checkpoint.Tree.N >= n {
			return checkpoint
		}
		if time.Since(began) > patience {
			t.Fatalf("the log has %d leaves after %v: want %d", checkpoint.Tree.N, patience, n)
		}
	}
}

// open checks a signed note, C2SP signed-note and tlog-checkpoint.
func (c *LogClient) open(t testing.TB, signed string) Checkpoint {
	t.Helper()
	origin, _, _ := strings.Cut(signed, "\n")
	key, err := note.NewEd25519VerifierKey(origin, c.public)
	if err != nil {
		t.Fatalf("the log's key, for origin %q: %v", origin, err)
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := note.Open([]byte(signed), note.VerifierList(verifier))
	if err != nil {
		t.Fatalf("open checkpoint: %v\n%s", err, signed)
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 {
		t.Fatalf("the checkpoint has %d lines: want 3\n%s", len(lines)-1, signed)
	}
	checkpoint := Checkpoint{Origin: lines[0]}
	if checkpoint.Tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		t.Fatalf("the checkpoint's size: %v", err)
	}
	root, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		t.Fatalf("the checkpoint's root %q is not the base64 of a hash", lines[2])
	}
	checkpoint.Tree.Hash = tlog.Hash(root)
	return checkpoint
}

// CheckGrown proves from the served tiles that the later tree grew out of the earlier one.
func (c *LogClient) CheckGrown(t testing.TB, earlier, later Checkpoint) {
	t.Helper()
	if later.Origin != earlier.Origin || later.Tree.N < earlier.Tree.N {
		t.Fatalf("the log %q had %d leaves, and now it is %q with %d", earlier.Origin, earlier.Tree.N, later.Origin, later.Tree.N)
	}
	if earlier.Tree.N == 0 {
		return // everything grows out of nothing
	}
	proof, err := tlog.ProveTree(later.Tree.N, earlier.Tree.N, tlog.TileHashReader(later.Tree, c))
	if err != nil {
		t.Fatalf("prove that tree size %d grew out of %d: %v", later.Tree.N, earlier.Tree.N, err)
	}
	if err := tlog.CheckTree(proof, later.Tree.N, later.Tree.Hash, earlier.Tree.N, earlier.Tree.Hash); err != nil {
		t.Fatalf("tree size %d did not grow out of tree size %d: %v", later.Tree.N, earlier.Tree.N, err)
	}
}

// CheckLeaves compares each leaf with its hash in the served tiles.
func (c *LogClient) CheckLeaves(t testing.TB, at Checkpoint, leaves [][]byte) {
	t.Helper()
	if int64(len(leaves)) != at.Tree.N {
		t.Fatalf("the ledger has %d leaves, and the checkpoint covers %d", len(leaves), at.Tree.N)
	}
	indexes := make([]int64, len(leaves))
	for i := range indexes {
		indexes[i] = tlog.StoredHashIndex(0, int64(i))
	}
	hashes, err := tlog.TileHashReader(at.Tree, c).ReadHashes(indexes)
	if err != nil {
		t.Fatalf("read the tiles of tree size %d: %v", at.Tree.N, err)
	}
	for i, leaf := range leaves {
		if hashes[i] != tlog.RecordHash(leaf) {
			t.Fatalf("leaf %d is not the one that was sealed", i)
		}
	}
}

// Height, ReadTiles and SaveTiles make the client a tlog.TileReader.
func (c *LogClient) Height() int { return tileHeight }

// SaveTiles does nothing: nothing is cached.
func (c *LogClient) SaveTiles([]tlog.Tile, [][]byte) {}

// ReadTiles fetches tiles, each by its own path.
func (c *LogClient) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	for i, tile := range tiles {
		// The specification leaves out the height, which tlog writes.
		path := "/tile/" + strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", tileHeight))
		var err error
		if data[i], err = c.get(path); err != nil {
			return nil, err
		}
	}
	return data, nil
}

func (c *LogClient) get(path string) ([]byte, error) {
	answer, err := c.client.Get(c.URL + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("GET %s: %w", path, errNotFound)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: HTTP status %d", path, answer.StatusCode)
	}
	return io.ReadAll(io.LimitReader(answer.Body, 1<<20))
}
