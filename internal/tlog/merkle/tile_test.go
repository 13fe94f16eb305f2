package merkle_test

import (
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

func TestTilePaths(t *testing.T) {
	tests := map[string]merkle.Tile{
		"tile/0/000":                 {Level: 0, Index: 0, Width: 256},
		"tile/0/x001/x234/067":       {Level: 0, Index: 1234067, Width: 256},
		"tile/1/001.p/17":            {Level: 1, Index: 1, Width: 17},
		"tile/0/x001/000.p/255":      {Level: 0, Index: 1000, Width: 255},
		"tile/63/x999/x999/x999/999": {Level: 63, Index: 999_999_999_999, Width: 256},
	}
	for path, want := range tests {
		if got := want.Path(); got != path {
			t.Errorf("path of %+v: got %s, want %s", want, got, path)
		}
		if got, err := merkle.ParsePath(path); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", path, got, err, want)
		}
	}
}

func TestMalformedTilePathsAreRefused(t *testing.T) {
	for _, path := range []string{
		"", "tile", "tile/", "tile/0", "tile/0/", "tile/0/0", "tile/0/00", "tile/0/0000", "tile/00/000", "tile/64/000",
		"tile/-1/000", "tile/+1/000", "tile/0/x000/001", "tile/0/001/234", "tile/0/x001", "tile/0/x001/x234", "tile/0/000.p/0",
		"tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/", "tile/0/000.p/1/", "tile/0/000.p/1.p/1", "tile/entries/000",
		"tile/data/000", "tile/0/000/", "/tile/0/000", "tile/0/-01", "tile/0/٠٠٠", "tile/8/0/000", "tile/0/../000",
		"tile/0/x001/x001/x001/x001/x001/x001/001", "tile/0/" + strings.Repeat("x999/", 10_000) + "999",
	} {
		if tile, err := merkle.ParsePath(path); err == nil {
			t.Errorf("%.50q was read as %+v", path, tile)
		}
	}
}

// A path that is read is the tile's only path, and the other implementation, whose paths name the height too, agrees.
func FuzzParsePath(f *testing.F) {
	for _, seed := range []string{"tile/0/000", "tile/0/x001/x234/067", "tile/1/001.p/17", "tile/0/x001", "tile/0/000.p/256", "tile/-1/000", "tile/100/000"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		tile, err := merkle.ParsePath(path)
		rest, isTile := strings.CutPrefix(path, "tile/")
		other, otherErr := tlog.ParseTilePath("tile/8/" + rest)
		switch {
		case err == nil && tile.Path() != path:
			t.Errorf("%q was read as %+v, whose path is %q", path, tile, tile.Path())
		case err == nil && (otherErr != nil || other.L != tile.Level || other.N != tile.Index || other.W != tile.Width):
			t.Errorf("%q: got %+v, other implementation %+v, %v", path, tile, other, otherErr)
		case err != nil && isTile && otherErr == nil && other.L >= 0 && other.L <= 63 && other.N < 1e18:
			t.Errorf("%q: refused with %v, other implementation reads %+v", path, err, other)
		}
	})
}
