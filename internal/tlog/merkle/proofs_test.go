package merkle_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// 100,000 random proofs, half of them of inclusion and half of consistency, in trees of random sizes up to more than a full
// tile of level 1, are what the reference library computes from its own tree.
func TestRandomProofsEqualTheReferenceLibrary(t *testing.T) {
	const proofs, leaves = 100_000, 66_500
	reference := testonly.New(rfc6962.DefaultHasher)
	store := newTileMap()
	data, hashes := numbered(0, leaves)
	reference.AppendData(data...)
	store.grow(hashes)
	seed := rand.Uint64()
	workers := runtime.GOMAXPROCS(0)
	var group sync.WaitGroup
	for worker := range workers {
		group.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(worker)))
			for range proofs / workers {
				if err := compareProof(rnd, reference, store); err != "" {
					t.Errorf("seed %d: %s", seed, err)
					return
				}
			}
		})
	}
	group.Wait()
}

// compareProof draws one proof and says how the two differ.
func compareProof(rnd *rand.Rand, reference *testonly.Tree, store *tileMap) string {
	ctx := context.Background()
	// Small sizes as often as large ones, and those around a power of two.
	size := 1 + rnd.Int64N(1<<(1+rnd.IntN(17)))
	if size > int64(reference.Size()) {
		size = 1 + rnd.Int64N(int64(reference.Size()))
	}
	var got []merkle.Hash
	var want [][]byte
	var err, referenceErr error
	if part := rnd.Int64N(size); rnd.IntN(2) == 0 {
		got, err = merkle.InclusionProof(ctx, part, size, store.read)
		want, referenceErr = reference.InclusionProof(uint64(part), uint64(size))
	} else {
		got, err = merkle.ConsistencyProof(ctx, part, size, store.read)
		want, referenceErr = reference.ConsistencyProof(uint64(part), uint64(size))
	}
	if err != nil || referenceErr != nil || len(got) != len(want) {
		return fmt.Sprintf("tree of %d leaves: %d hashes, %v; the reference has %d, %v", size, len(got), err, len(want), referenceErr)
	}
	for i := range got {
		if !bytes.Equal(got[i][:], want[i]) {
			return fmt.Sprintf("tree of %d leaves: hash %d of the proof is %s, the reference has %x", size, i, got[i], want[i])
		}
	}
	return ""
}
