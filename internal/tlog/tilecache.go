package tlog

import (
	"container/list"
	"sync"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// tileCache holds the tiles that were used last. What a tile holds never changes, it only grows: so nothing is ever
// invalidated, and one that has become too narrow is replaced.
type tileCache struct {
	mu       sync.Mutex
	capacity int // in tiles of 8 KiB
	byUse    *list.List
	entries  map[tileID]*list.Element
}

type cachedTile struct {
	id     tileID
	hashes []byte
}

func newTileCache(capacity int) *tileCache {
	return &tileCache{capacity: capacity, byUse: list.New(), entries: make(map[tileID]*list.Element)}
}

// get returns at least width hashes of a tile.
func (c *tileCache) get(id tileID, width int) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.entries[id]
	if !ok || len(element.Value.(cachedTile).hashes) < width*merkle.HashSize {
		return nil, false
	}
	c.byUse.MoveToFront(element)
	return element.Value.(cachedTile).hashes, true
}

// put keeps a tile, unless one that is at least as wide is kept.
func (c *tileCache) put(id tileID, hashes []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if element, ok := c.entries[id]; ok {
		if len(element.Value.(cachedTile).hashes) < len(hashes) {
			element.Value = cachedTile{id, hashes}
		}
		return
	}
	c.entries[id] = c.byUse.PushFront(cachedTile{id, hashes})
	if c.byUse.Len() > c.capacity {
		oldest := c.byUse.Back()
		c.byUse.Remove(oldest)
		delete(c.entries, oldest.Value.(cachedTile).id)
	}
}
