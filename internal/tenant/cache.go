package tenant

import (
	"crypto/sha256"
	"sync"
	"time"
)

// answer is what is known about a key, and until when.
type answer struct {
	principal Principal
	err       error
	until     time.Time
}

// cache holds answers by the hash of their key, at most capacity of them.
type cache struct {
	capacity int
	mu       sync.RWMutex
	answers  map[[sha256.Size]byte]answer
}

func newCache(capacity int) *cache {
	return &cache{capacity: capacity, answers: make(map[[sha256.Size]byte]answer)}
}

func (c *cache) get(hash [sha256.Size]byte, now time.Time) (answer, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	a, found := c.answers[hash]
	return a, found && now.Before(a.until)
}

// put keeps an answer. When there is no room it drops what is out of date, and one of the others if that is nothing.
func (c *cache) put(hash [sha256.Size]byte, a answer, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, found := c.answers[hash]; !found && len(c.answers) >= c.capacity {
		for other, old := range c.answers {
			if !now.Before(old.until) {
				delete(c.answers, other)
			}
		}
		for other := range c.answers {
			if len(c.answers) < c.capacity {
				break
			}
			delete(c.answers, other)
		}
	}
	c.answers[hash] = a
}

// clear forgets all.
func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.answers)
}
