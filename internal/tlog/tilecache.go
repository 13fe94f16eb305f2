package tlog

import (
	"container/list"
	"sync"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// tileCache holds the full tiles that were used last. Full tiles never change, so nothing is ever invalidated.
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

func (c *tileCache) get(id tileID) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	element, ok := c.entries[id]
	if !ok {
		return nil, false
	}
	c.byUse.MoveToFront(element)
	return element.Value.(cachedTile).hashes, true
}

// put keeps a tile if it is full.
func (c *tileCache) put(id tileID, hashes []byte) {
	if len(hashes) != merkle.TileBytes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[id]; ok {
		return
	}
	c.entries[id] = c.byUse.PushFront(cachedTile{id, hashes})
	if c.byUse.Len() > c.capacity {
		oldest := c.byUse.Back()
		c.byUse.Remove(oldest)
		delete(c.entries, oldest.Value.(cachedTile).id)
	}
}
