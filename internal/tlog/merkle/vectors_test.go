package merkle_test

import (
	"context"
	"encoding/hex"
	"slices"
	"testing"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// The leaves and roots that implementations of RFC 6962 test against.
var classicLeaves = []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"}

var classicRoots = []string{
	"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
	"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
	"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
	"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
	"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
	"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
	"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
	"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func classicHashes(t *testing.T) []merkle.Hash {
	t.Helper()
	var hashes []merkle.Hash
	for _, leaf := range classicLeaves {
		hashes = append(hashes, merkle.LeafHash(unhex(t, leaf)))
	}
	return hashes
}

func TestRootsOfClassicLeaves(t *testing.T) {
	hashes := classicHashes(t)
	for size, want := range classicRoots {
		tree, _ := new(merkle.Tree).Grow(hashes[:size])
		if got := tree.Root().String(); got != want {
			t.Errorf("root of %d leaves: got %s, want %s", size, got, want)
		}
	}
}

func TestProofsOfClassicLeaves(t *testing.T) {
	store := newTileMap()
	store.grow(classicHashes(t))
	const (
		h0 = "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7"
		h1 = "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e"
		h2 = "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
		h3 = "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
		h4 = "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0"
		h5 = "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a"
	)
	ctx := context.Background()
	check := func(name string, got []merkle.Hash, err error, want ...string) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		var texts []string
		for _, hash := range got {
			texts = append(texts, hash.String())
		}
		if !slices.Equal(texts, want) {
			t.Errorf("%s: got %v, want %v", name, texts, want)
		}
	}
	path, err := merkle.InclusionProof(ctx, 0, 8, store.read)
	check("leaf 0 of 8", path, err, h0, h1, h2)
	path, err = merkle.InclusionProof(ctx, 5, 8, store.read)
	check("leaf 5 of 8", path, err, h3, h4, classicRoots[4])
	path, err = merkle.InclusionProof(ctx, 2, 3, store.read)
	check("leaf 2 of 3", path, err, classicRoots[2])
	path, err = merkle.ConsistencyProof(ctx, 1, 8, store.read)
	check("1 to 8", path, err, h0, h1, h2)
	path, err = merkle.ConsistencyProof(ctx, 6, 8, store.read)
	check("6 to 8", path, err, h5, h4, classicRoots[4])
	path, err = merkle.ConsistencyProof(ctx, 2, 5, store.read)
	check("2 to 5", path, err, h1, h3)
}
