package limit

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
)

// What a source may fail at: after maxFailures at once, a few a second. That is far more than a provider's retries of what
// an endpoint refuses, and too few for guessing or for keeping a node busy.
const (
	failuresPerSecond = 10
	maxFailures       = 100
	// maxSources bounds the buckets, some 100 bytes each, in two generations. A generation ends when it is full, or after
	// generationTime, in which every bucket becomes full again: what is forgotten then says nothing any more.
	maxSources     = 32768
	generationTime = 2 * maxFailures / failuresPerSecond * time.Second
	// goodFor is for how long a source is known to sign well.
	goodFor = 24 * time.Hour
	// goodSlots of 8 bytes.
	goodSlots = 1 << 16
	// ipv6Bits is the smallest network that a customer is given (RFC 6177): its addresses are one source.
	ipv6Bits = 64
)

// The scopes of what is no endpoint's.
var (
	// UnknownEndpoints is for webhooks to addresses that do not exist.
	UnknownEndpoints = uuid.UUID{15: 1}
	// APIKeys is for calls with an API key that is not known.
	APIKeys = uuid.UUID{15: 2}
)

// Source is who sends, before it is known who that is: an address, or a network of IPv6, and what it sends to. What fails
// at one endpoint says nothing about another: the addresses of a large provider stand for all of its customers.
type Source struct {
	address netip.Addr
	scope   uuid.UUID
}

// NewSource makes the one of an IP address as text, at an endpoint or one of the scopes. An address that cannot be read is
// nobody's, and never refused.
func NewSource(address string, scope uuid.UUID) Source {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return Source{}
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		prefix, _ := addr.Prefix(ipv6Bits) // of a valid address
		addr = prefix.Addr()
	}
	return Source{address: addr, scope: scope}
}

// Sources remembers who failed to prove who they are: a token bucket a source, of which only failures take. Make it with
// NewSources. Safe for concurrent use.
//
// Many may share an address (NAT), good ones and bad ones. So a source that has signed well for an endpoint within a day is
// never refused there, however much fails beside it; that costs its neighbours' forgeries a check each. One that signs well
// for the first time while others at its address flood the same endpoint may be refused once or twice: each token that the
// bucket gains lets one webhook pass to the check, and one that is signed well spends none.
type Sources struct {
	started time.Time
	rate    rate
	count   atomic.Int64 // of buckets; as long as there is none, nobody need look

	mu       sync.Mutex
	current  map[Source]*bucket
	previous map[Source]*bucket // the generation before
	began    time.Duration      // the current one

	seed maphash.Seed
	// good are pairs of address and endpoint that signed well: 40 bits that tell pairs in a slot apart, and 24 for the hour.
	// One that another pair takes the slot of is checked like a new one.
	good []atomic.Uint64
}

// NewSources makes one that knows nobody.
func NewSources() *Sources {
	return &Sources{
		started: time.Now(), rate: newRate(failuresPerSecond, maxFailures), current: make(map[Source]*bucket),
		seed: maphash.MakeSeed(), good: make([]atomic.Uint64, goodSlots),
	}
}

// Blocked returns how long a source must wait before it is listened to again, 0 when it need not. It costs next to nothing
// while nobody fails.
func (s *Sources) Blocked(source Source) time.Duration {
	if s.count.Load() == 0 || !source.address.IsValid() {
		return 0
	}
	now := time.Since(s.started)
	s.mu.Lock()
	b := s.find(source, now)
	wait := time.Duration(0)
	if b != nil {
		wait = b.wait(now, s.rate)
	}
	s.mu.Unlock()
	if wait > 0 && s.IsGood(source) {
		return 0
	}
	return wait
}

// Failed takes a token of a source that could not prove who it is.
func (s *Sources) Failed(source Source) {
	if !source.address.IsValid() {
		return
	}
	now := time.Since(s.started)
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.find(source, now)
	if b == nil {
		b = new(bucket)
		s.keep(source, b, now)
	}
	b.take(now, s.rate)
}

// find returns a source's bucket, nil when it has none. One of the generation before that is not full lives on.
func (s *Sources) find(source Source, now time.Duration) *bucket {
	if now-s.began > generationTime {
		s.nextGeneration(now)
	}
	b := s.current[source]
	if b == nil {
		if b = s.previous[source]; b != nil && b.full > now {
			s.keep(source, b, now)
		}
	}
	return b
}

func (s *Sources) keep(source Source, b *bucket, now time.Duration) {
	if len(s.current) >= maxSources/2 {
		s.nextGeneration(now)
	}
	s.current[source] = b
	s.count.Store(int64(len(s.current) + len(s.previous)))
}

func (s *Sources) nextGeneration(now time.Duration) {
	s.previous, s.current, s.began = s.current, make(map[Source]*bucket), now
	s.count.Store(int64(len(s.previous)))
}

// Proved remembers that a source is who it says: it signed well for its endpoint, or has an API key that is good.
func (s *Sources) Proved(source Source) {
	slot, mark := s.mark(source)
	if slot.Load() != mark {
		slot.Store(mark)
	}
}

const hourBits = 24

func (s *Sources) mark(source Source) (slot *atomic.Uint64, mark uint64) {
	var key [32]byte
	address := source.address.As16()
	copy(key[:], address[:])
	copy(key[16:], source.scope[:])
	hash := maphash.Bytes(s.seed, key[:])
	hour := uint64(time.Since(s.started)/time.Hour) & (1<<hourBits - 1)
	return &s.good[hash%goodSlots], hash>>hourBits<<hourBits | hour
}

// IsGood reports whether a source has proved within a day who it is.
func (s *Sources) IsGood(source Source) bool {
	slot, now := s.mark(source)
	then := slot.Load()
	const hours = 1<<hourBits - 1
	return then != 0 && then&^hours == now&^hours && (now&hours)-(then&hours) <= uint64(goodFor/time.Hour)
}
