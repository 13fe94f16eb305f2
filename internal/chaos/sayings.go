package chaos

import (
	"bytes"
	"maps"
	"regexp"
	"sync"
)

// sayings count what a process says of itself in its log: that it is ready, and at which points it was made to fail.
type sayings struct {
	mu      sync.Mutex
	partial []byte // the line that is not complete yet
	counts  map[string]int
}

const saidReady = "ready"

// saying matches what internal/fault puts into errors and panics, and the line of a node that is ready.
var saying = regexp.MustCompile(`([a-z]+\.[a-z_]+): injected fault|injected fault at ([a-z]+\.[a-z_]+)|"msg":"(` + saidReady + `)"`)

// Write takes in a piece of the log.
func (s *sayings) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partial = append(s.partial, p...)
	for {
		line, rest, complete := bytes.Cut(s.partial, []byte("\n"))
		if !complete {
			return len(p), nil
		}
		if match := saying.FindSubmatch(line); match != nil {
			if s.counts == nil {
				s.counts = make(map[string]int)
			}
			s.counts[string(bytes.Join(match[1:], nil))]++
		}
		s.partial = append(s.partial[:0], rest...)
	}
}

// all returns the counts so far.
func (s *sayings) all() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.counts)
}
