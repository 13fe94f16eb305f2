package tlog

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// syntheticLog makes the tiles and the head of a log without leaves, whose hashes are hashOf.
func syntheticLog(t testing.TB, size int64, hashOf func(int64) merkle.Hash) *rig {
	t.Helper()
	r := newRig(t)
	hashes := make([]merkle.Hash, size)
	for i := range hashes {
		hashes[i] = hashOf(int64(i))
	}
	tree, tiles := new(merkle.Tree).Grow(hashes)
	for len(tiles) > 0 {
		n := min(len(tiles), 200)
		if err := r.reader.tiles.write(r.ctx, tiles[:n]); err != nil {
			t.Fatal(err)
		}
		tiles = tiles[n:]
	}
	root := tree.Root()
	r.tamper("insert into tree_heads (log_id, tree_size, root_hash, signed_at, note) values (1, $1, $2, now(), 'note')", size, root[:])
	return r
}

func numberedHash(i int64) merkle.Hash {
	return merkle.LeafHash(binary.BigEndian.AppendUint64(nil, uint64(i)))
}

func TestLeavesAreFoundByTheirHash(t *testing.T) {
	const size = 2*blockLeaves + 1000
	r := syntheticLog(t, size, numberedHash)
	find := func(what string) {
		t.Helper()
		for _, index := range []int64{0, 1, 255, 256, blockLeaves - 1, blockLeaves, 2*blockLeaves - 1, 2 * blockLeaves, size - 1} {
			if got, err := r.reader.FindLeaf(r.ctx, numberedHash(index)); err != nil || got != index {
				t.Errorf("%s: leaf %d: got %d, %v", what, index, got, err)
			}
		}
		for _, index := range []int64{size, -1} {
			if got, err := r.reader.FindLeaf(r.ctx, numberedHash(index)); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: a hash that is not in the log: got %d, %v", what, got, err)
			}
		}
	}
	find("without an index")
	heads := NewHeads(r.reader)
	if err := heads.Refresh(r.ctx); err != nil {
		t.Fatal(err)
	}
	indexer := NewLeafIndexer(r.reader, heads, slog.New(slog.DiscardHandler))
	if err := indexer.next(r.ctx); err != nil {
		t.Fatal(err)
	}
	find("with one block indexed")
	ctx, cancel := context.WithCancel(r.ctx)
	ended := make(chan error)
	for range 2 { // two nodes
		go func() { ended <- indexer.Run(ctx) }()
	}
	waitForBlocks(t, r, 2)
	cancel()
	for range 2 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the indexer ended with %v", err)
		}
	}
	find("with two blocks indexed")
	var rows int
	if err := r.pool.QueryRow(r.ctx, "select count(*) from leaf_hashes").Scan(&rows); err != nil || rows != 2*buckets {
		t.Errorf("%d rows, %v: want %d", rows, err, 2*buckets)
	}
	// The index is what answers for its blocks, and it is never believed: a leaf is told of only if its tile has the hash.
	r.tamper("update leaf_hashes set entries = ''")
	if _, err := r.reader.FindLeaf(r.ctx, numberedHash(0)); !errors.Is(err, ErrNotFound) {
		t.Errorf("without its entry: %v", err)
	}
	wrong := numberedHash(7)
	r.tamper("update leaf_hashes set entries = $1 where bucket = $2", append(wrong[1:1+prefixBytes:1+prefixBytes], 0, 9), wrong[0])
	if got, err := r.reader.FindLeaf(r.ctx, wrong); !errors.Is(err, ErrNotFound) {
		t.Errorf("an entry that points at another leaf: got %d, %v", got, err)
	}
}

func waitForBlocks(t *testing.T, r *rig, want int64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		blocks, err := r.reader.tiles.queries.LeafHashBlocks(r.ctx, r.pool, testLogID)
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%d blocks are indexed, %v: want %d", blocks, err, want)
		}
		if blocks >= want {
			return
		}
	}
}

// Leaves whose hashes begin alike are told apart, even if they end up in one bucket with the same bytes.
func TestLeavesWithAlikeHashesAreToldApart(t *testing.T) {
	alike := func(i int64) (h merkle.Hash) { // as no honest hash is
		copy(h[:], "alike")
		binary.BigEndian.PutUint64(h[24:], uint64(i))
		return h
	}
	r := syntheticLog(t, blockLeaves+1, alike)
	heads := NewHeads(r.reader)
	if err := heads.Refresh(r.ctx); err != nil {
		t.Fatal(err)
	}
	if err := NewLeafIndexer(r.reader, heads, slog.New(slog.DiscardHandler)).next(r.ctx); err != nil {
		t.Fatal(err)
	}
	for _, index := range []int64{0, 300, blockLeaves} {
		if got, err := r.reader.FindLeaf(r.ctx, alike(index)); err != nil || got != index {
			t.Errorf("leaf %d: got %d, %v", index, got, err)
		}
	}
}

func TestLeavesCannotBeFoundWhileTheIndexIsFarBehind(t *testing.T) {
	r := sealed(t, 5)
	r.tamper("update tree_heads set tree_size = $1 where tree_size = 5", int64(maxUnindexed+1))
	if _, err := r.reader.FindLeaf(r.ctx, numberedHash(0)); !errors.Is(err, ErrIndexing) {
		t.Errorf("got %v, want ErrIndexing", err)
	}
}
