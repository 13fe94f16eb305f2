package tlog

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kapsel-dev/kapsel/internal/tlog/checkpoint"
	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
	"github.com/kapsel-dev/kapsel/sdk/go/verify"
)

// sealed makes a log with heads of these sizes.
func sealed(t testing.TB, sizes ...int64) *rig {
	t.Helper()
	r := newRig(t)
	sealer := r.sealer("mark", nil)
	var size int64
	for _, next := range sizes {
		r.record(next-size, 0)
		r.flush(sealer)
		size = next
	}
	return r
}

func TestProofsOfPublishedSizesVerify(t *testing.T) {
	r := sealed(t, 1, 3, 256, 300, 1025)
	head := r.wantHead(1025)
	for range 2 { // the second time from the cache
		for _, index := range []int64{0, 2, 255, 256, 299, 1023, 1024} {
			path, err := r.reader.InclusionProof(r.ctx, index, head.Size)
			if err != nil {
				t.Fatal(err)
			}
			if err := merkle.VerifyInclusion(index, head.Size, merkle.LeafHash(testLeaf(index)), path, head.Root); err != nil {
				t.Errorf("leaf %d: %v", index, err)
			}
		}
	}
	for _, from := range []int64{0, 1, 3, 256, 300, 1025} {
		old := Head{Root: merkle.EmptyRoot}
		var err error
		if old, err = r.reader.HeadAt(r.ctx, from); err != nil {
			t.Fatal(err)
		}
		proof, err := r.reader.ConsistencyProof(r.ctx, from, head.Size)
		if err != nil {
			t.Fatal(err)
		}
		if err := merkle.VerifyConsistency(from, head.Size, proof, old.Root, head.Root); err != nil {
			t.Errorf("from %d: %v", from, err)
		}
	}
	if covering, err := r.reader.HeadCovering(r.ctx, 256); err != nil || covering.Size != 300 {
		t.Errorf("first head over leaf 256: got %d, %v, want 300", covering.Size, err)
	}
}

func TestNothingBeyondThePublishedHeadIsTold(t *testing.T) {
	r := sealed(t, 300)
	// Tiles of a tree that was never signed.
	leaves := make([]merkle.Hash, 600)
	_, tiles := new(merkle.Tree).Grow(leaves)
	if err := r.reader.tiles.write(r.ctx, tiles); err != nil {
		t.Fatal(err)
	}
	r.reader = NewReader(r.pool, testLogID, testOrigin)
	notFound := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: got %v, want ErrNotFound", what, err)
		}
	}
	_, err := r.reader.InclusionProof(r.ctx, 0, 301)
	notFound("inclusion in a size that is not published", err)
	_, err = r.reader.InclusionProof(r.ctx, 300, 300)
	notFound("a leaf beyond its tree", err)
	_, err = r.reader.InclusionProof(r.ctx, -1, 300)
	notFound("a leaf below 0", err)
	_, err = r.reader.ConsistencyProof(r.ctx, 300, 301)
	notFound("consistency with a size that is not published", err)
	_, err = r.reader.ConsistencyProof(r.ctx, 300, 299)
	notFound("consistency backwards", err)
	_, err = r.reader.HeadAt(r.ctx, 299)
	notFound("a head that is not there", err)
	_, err = r.reader.HeadCovering(r.ctx, 300)
	notFound("a head over a leaf that is not sealed", err)
	for _, tile := range []merkle.Tile{
		{Level: 0, Index: 1, Width: 45}, {Level: 0, Index: 1, Width: 256}, {Level: 0, Index: 2, Width: 1}, {Level: 1, Index: 0, Width: 2},
		{Level: 2, Index: 0, Width: 1}, {Level: 63, Index: 0, Width: 256}, {Level: 0, Index: 0, Width: 0}, {Level: -1, Index: 0, Width: 1},
		{Level: 0, Index: 0, Width: 257}, {Level: 0, Index: -1, Width: 256},
	} {
		_, err := r.reader.Tile(r.ctx, tile)
		notFound(fmt.Sprintf("tile %+v", tile), err)
	}
}

func TestTilesOfEveryPublishedWidthAreServed(t *testing.T) {
	r := sealed(t, 10, 300)
	for _, tile := range []merkle.Tile{{Width: 10}, {Width: 256}, {Index: 1, Width: 44}, {Level: 1, Width: 1}} {
		hashes, err := r.reader.Tile(r.ctx, tile)
		if err != nil || len(hashes) != tile.Width*merkle.HashSize {
			t.Errorf("%s: got %d bytes, %v", tile.Path(), len(hashes), err)
			continue
		}
		first := merkle.LeafHash(testLeaf(tile.Index * merkle.TileWidth))
		if tile.Level == 0 && !bytes.Equal(hashes[:merkle.HashSize], first[:]) {
			t.Errorf("%s begins with %x, want %s", tile.Path(), hashes[:merkle.HashSize], first)
		}
	}
}

func TestTileCacheIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	cache := newTileCache(3)
	full := make([]byte, merkle.TileBytes)
	cache.put(tileID{0, 99}, full[:2*merkle.HashSize])
	if _, ok := cache.get(tileID{0, 99}, 3); ok {
		t.Error("a tile that has grown since was given out")
	}
	cache.put(tileID{0, 99}, full[:3*merkle.HashSize])
	cache.put(tileID{0, 99}, full[:1*merkle.HashSize])
	if hashes, ok := cache.get(tileID{0, 99}, 2); !ok || len(hashes) != 3*merkle.HashSize {
		t.Errorf("%d bytes, %v: want the widest", len(hashes), ok)
	}
	for i := range int64(10) {
		cache.put(tileID{0, i}, full)
		cache.put(tileID{0, i}, full)
		cache.get(tileID{0, 0}, 256)
	}
	var kept []int64
	for i := range int64(10) {
		if _, ok := cache.get(tileID{0, i}, 256); ok {
			kept = append(kept, i)
		}
	}
	if !slices.Equal(kept, []int64{0, 8, 9}) || len(cache.entries) != cache.byUse.Len() {
		t.Errorf("kept %v, want 0, 8 and 9", kept)
	}
}

func TestPackageVerifiesOffline(t *testing.T) {
	r := sealed(t, 256, 300)
	head := r.wantHead(300)
	key, err := r.key().VerifierKey(testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	for _, index := range []int64{0, 255, 256, 299} {
		text, err := r.pack(index, testLeaf(index), head)
		if err != nil {
			t.Fatal(err)
		}
		if report, err := verify.Verify(text, verify.Options{TrustedKeys: []string{key}}); err != nil || !report.Full {
			t.Errorf("package of leaf %d: %v\n%s", index, err, text)
		}
		p, err := verify.Parse(text)
		if err != nil || p.LogID != "1" || p.LeafIndex != index || p.TreeSize != 300 || p.Checkpoint != head.Note {
			t.Errorf("package of leaf %d: %v\n%s", index, err, text)
		}
	}
}

func TestPackageOfTheOnlyLeafVerifies(t *testing.T) {
	r := sealed(t, 1)
	text, err := r.pack(0, testLeaf(0), r.wantHead(1))
	if err != nil {
		t.Fatal(err)
	}
	key, err := r.key().VerifierKey(testOrigin)
	if err != nil {
		t.Fatal(err)
	}
	if report, err := verify.Verify(text, verify.Options{TrustedKeys: []string{key}}); err != nil || !report.Full {
		t.Error(err)
	}
}

func TestSignedNoteHasTheWitnessesLines(t *testing.T) {
	r := sealed(t, 300)
	head := r.wantHead(300)
	cosignature := "— witness.example " + base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{6}, 76)) + "\n"
	r.tamper("insert into cosignatures (log_id, tree_size, key_name, line) values (1, 300, 'witness.example', $1)", cosignature)
	signed, err := r.reader.SignedNote(r.ctx, head)
	if err != nil || signed != head.Note+cosignature {
		t.Errorf("got %q, %v", signed, err)
	}
	if c, _, err := checkpoint.Open(signed, testOrigin, r.key().Public()); err != nil || c.Root != head.Root {
		t.Errorf("with a witness's line: %+v, %v", c, err)
	}
}

func TestNoPackageOfALeafThatWasNotSealed(t *testing.T) {
	r := sealed(t, 300)
	head := r.wantHead(300)
	if _, err := r.pack(7, testLeaf(8), head); !errors.Is(err, ErrCorrupt) {
		t.Errorf("other bytes than were sealed: got %v, want ErrCorrupt", err)
	}
	if _, err := r.pack(300, testLeaf(300), head); !errors.Is(err, ErrNotFound) {
		t.Errorf("a leaf that is not sealed yet: got %v, want ErrNotFound", err)
	}
}

func TestHeadsTellThoseWhoWait(t *testing.T) {
	r := newRig(t)
	heads := NewHeads(r.reader)
	if _, known := heads.Latest(); known {
		t.Error("a head is known before there is one")
	}
	if err := heads.Refresh(r.ctx); err != nil {
		t.Errorf("refresh without a head: %v", err)
	}
	short, cancel := context.WithTimeout(r.ctx, 10*time.Millisecond)
	defer cancel()
	if _, err := heads.Wait(short, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait without a head: got %v", err)
	}
	got := make(chan Head, 20)
	for range cap(got) {
		go func() {
			head, err := heads.Wait(r.ctx, 100)
			if err != nil {
				t.Error(err)
			}
			got <- head
		}()
	}
	heads.Publish(Head{Size: 50})
	heads.Publish(Head{Size: 120})
	heads.Publish(Head{Size: 110})
	for range cap(got) {
		if head := <-got; head.Size != 120 {
			t.Errorf("waited for 100 leaves and got %d", head.Size)
		}
	}
	if head, _ := heads.Latest(); head.Size != 120 {
		t.Errorf("an older head replaced the latest: %d", head.Size)
	}
}

// A node that does not seal hears of heads by PostgreSQL's notifications.
func TestHeadsOfOtherNodesComeByNotification(t *testing.T) {
	r := newRig(t)
	conn, err := r.pool.Acquire(r.ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(r.ctx, "listen "+NotifyChannel); err != nil {
		t.Fatal(err)
	}
	r.record(10, 0)
	r.flush(r.sealer("mark", nil))
	heads := NewHeads(r.reader)
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Second)
	defer cancel()
	for {
		notification, err := conn.Conn().WaitForNotification(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := heads.Notify(r.ctx, notification.Payload); err != nil {
			t.Fatal(err)
		}
		if head, known := heads.Latest(); known && head.Size == 10 {
			break
		}
	}
	if err := heads.Notify(r.ctx, "2 500"); err != nil {
		t.Errorf("a head of another log: %v", err)
	}
	for _, payload := range []string{"", "1", "1 ", "x 1", "1 x", "1  2", "99999999999 1"} {
		if err := heads.Notify(r.ctx, payload); err == nil {
			t.Errorf("payload %q: want an error", payload)
		}
	}
}

func BenchmarkPackage(b *testing.B) {
	r := sealed(b, 20_000)
	head, err := r.reader.Head(r.ctx)
	if err != nil {
		b.Fatal(err)
	}
	var index int64
	for b.Loop() {
		index = (index + 7919) % head.Size
		if _, err := r.pack(index, testLeaf(index), head); err != nil {
			b.Fatal(err)
		}
	}
}
