package limit

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
)

var endpoint, otherEndpoint = uuid.New(), uuid.New()

// exhaust fails until the source is blocked.
func exhaust(t *testing.T, s *Sources, source Source) {
	t.Helper()
	for range 2 * maxFailures {
		if s.Blocked(source) > 0 {
			return
		}
		s.Failed(source)
	}
	t.Fatalf("%d failures, and not blocked", 2*maxFailures)
}

func TestSourceIsListenedToAgainAfterItsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSources()
		source := NewSource("192.0.2.1", endpoint)
		exhaust(t, s, source)
		wait := s.Blocked(source)
		if wait <= 0 || wait > time.Second/failuresPerSecond {
			t.Errorf("wait of %v", wait)
		}
		time.Sleep(wait)
		if again := s.Blocked(source); again != 0 {
			t.Errorf("after the wait: %v more", again)
		}
		for name, other := range map[string]Source{
			"another address": NewSource("192.0.2.2", endpoint), "another endpoint": NewSource("192.0.2.1", otherEndpoint),
			"no address": NewSource("@", endpoint),
		} {
			if s.Blocked(other) != 0 {
				t.Errorf("%s is blocked too", name)
			}
		}
		time.Sleep(3 * generationTime)
		s.Blocked(source)
		time.Sleep(3 * generationTime)
		s.Blocked(source)
		if n := s.count.Load(); n != 0 {
			t.Errorf("%d buckets are left of long ago", n)
		}
	})
}

func TestAddressesOfOneSource(t *testing.T) {
	same := [][2]string{
		{"2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"}, {"::ffff:192.0.2.1", "192.0.2.1"}, {"fe80::1%eth0", "fe80::2"},
	}
	for _, pair := range same {
		if NewSource(pair[0], endpoint) != NewSource(pair[1], endpoint) {
			t.Errorf("%s and %s are told apart", pair[0], pair[1])
		}
	}
	for _, pair := range [][2]string{{"2001:db8:1:2::1", "2001:db8:1:3::1"}, {"192.0.2.1", "192.0.2.2"}} {
		if NewSource(pair[0], endpoint) == NewSource(pair[1], endpoint) {
			t.Errorf("%s and %s are taken for one", pair[0], pair[1])
		}
	}
}

func TestSourceThatProvedItselfIsNotBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewSources()
		source, neighbour := NewSource("192.0.2.1", endpoint), NewSource("192.0.2.1", otherEndpoint)
		s.Proved(source)
		for range 10 * maxFailures {
			s.Failed(source)
			s.Failed(neighbour)
		}
		if s.Blocked(source) != 0 || s.Blocked(neighbour) == 0 {
			t.Errorf("blocked for %v and %v, want 0 and more", s.Blocked(source), s.Blocked(neighbour))
		}
		time.Sleep(goodFor + 2*time.Hour)
		for range 10 * maxFailures {
			s.Failed(source)
		}
		if s.Blocked(source) == 0 {
			t.Error("a proof of long ago still counts")
		}
	})
}

// Addresses are many: what is remembered of them is not.
func TestSourcesAreBounded(t *testing.T) {
	s := NewSources()
	for i := range 3 * maxSources {
		var address [16]byte
		binary.BigEndian.PutUint64(address[:], 0x20010db8<<32|uint64(i))
		s.Failed(NewSource(netip.AddrFrom16(address).String(), endpoint))
		if n := len(s.current) + len(s.previous); n > maxSources {
			t.Fatalf("%d buckets", n)
		}
	}
}

func BenchmarkSourceWhileNobodyFails(b *testing.B) {
	s := NewSources()
	for b.Loop() {
		source := NewSource("192.0.2.1", endpoint)
		if s.Blocked(source) == 0 {
			s.Proved(source)
		}
	}
}
