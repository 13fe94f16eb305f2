package merkle

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	// TileHeight is the number of tree levels in a tile.
	TileHeight = 8
	// TileWidth is the number of hashes in a full tile.
	TileWidth = 1 << TileHeight
	// TileBytes is the size of a full tile.
	TileBytes = TileWidth * HashSize

	// levels is how many tile levels a tree of up to 2^63-1 leaves can have.
	levels = 8
	// maxPathLevel is the highest level that the path syntax allows. No tree of ours has a tile there.
	maxPathLevel = 63
	// maxPathGroups bounds a tile index in a path to 18 digits, which is more than 2^63 leaves need.
	maxPathGroups = 6
)

// Tile names a run of hashes: the first Width of the TileWidth hashes that begin at Index*TileWidth of tile level Level.
// Hash i of a level stands for the leaves from i*256^Level to (i+1)*256^Level.
type Tile struct {
	Level int   // 0 holds leaf hashes
	Index int64 // place within the level
	Width int   // 1 to TileWidth; TileWidth is a full tile
}

// Full reports whether the tile can no longer grow.
func (t Tile) Full() bool { return t.Width == TileWidth }

// WidthAt returns how many hashes the tile at level and index has in a tree of size leaves, from 0 to TileWidth.
func WidthAt(level int, index, size int64) int {
	hashes := size >> (TileHeight * level)
	switch whole := hashes >> TileHeight; {
	case index < whole:
		return TileWidth
	case index == whole:
		return int(hashes & (TileWidth - 1))
	default:
		return 0
	}
}

// EdgeTiles returns the partial tiles at the right edge of a tree of size leaves, lowest level first. They determine
// its root.
func EdgeTiles(size int64) []Tile {
	var tiles []Tile
	for level := range levels {
		index := size >> (TileHeight * (level + 1))
		if width := WidthAt(level, index, size); width > 0 {
			tiles = append(tiles, Tile{Level: level, Index: index, Width: width})
		}
	}
	return tiles
}

// Path returns the tile's path of C2SP tlog-tiles, such as "tile/0/x001/x234/067" or "tile/1/000.p/17".
func (t Tile) Path() string {
	index := fmt.Sprintf("%03d", t.Index%1000)
	for n := t.Index / 1000; n > 0; n /= 1000 {
		index = fmt.Sprintf("x%03d/%s", n%1000, index)
	}
	path := fmt.Sprintf("tile/%d/%s", t.Level, index)
	if !t.Full() {
		path += fmt.Sprintf(".p/%d", t.Width)
	}
	return path
}

// ParsePath reads a path as Path writes it, and nothing else: each tile has exactly one path, so that a cache holds it
// once.
func ParsePath(path string) (Tile, error) {
	malformed := fmt.Errorf("%.100q is not a tile path: want tile/<level>/<index>[.p/<width>]", path)
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok {
		return Tile{}, malformed
	}
	level, rest, ok := strings.Cut(rest, "/")
	if !ok {
		return Tile{}, malformed
	}
	index, width, partial := strings.Cut(rest, ".p/")
	groups := strings.Split(index, "/")
	if len(groups) > maxPathGroups {
		return Tile{}, malformed
	}
	tile := Tile{Width: TileWidth}
	var err error
	if tile.Level, err = strconv.Atoi(level); err != nil || tile.Level < 0 || tile.Level > maxPathLevel {
		return Tile{}, malformed
	}
	for _, group := range groups {
		n, err := strconv.ParseUint(strings.TrimPrefix(group, "x"), 10, 10) // three digits fit in ten bits
		if err != nil || n > 999 {
			return Tile{}, malformed
		}
		tile.Index = tile.Index*1000 + int64(n)
	}
	if partial {
		if tile.Width, err = strconv.Atoi(width); err != nil || tile.Width < 1 || tile.Width >= TileWidth {
			return Tile{}, malformed
		}
	}
	if tile.Path() != path {
		return Tile{}, malformed
	}
	return tile, nil
}
