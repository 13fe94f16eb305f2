package signature

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
	"sync"
)

// macKey is an HMAC key with its keyed states. Keying costs two compressions and several
// allocations, so states are pooled and reset, which restores the keyed state by a copy.
type macKey struct {
	pool sync.Pool // of *macState
}

type macState struct {
	mac     hash.Hash
	scratch []byte
	sum     []byte
}

func newMACKey(a Algorithm, key []byte) *macKey {
	newHash := a.hash()
	k := &macKey{}
	k.pool.New = func() any {
		return &macState{mac: hmac.New(newHash, key), sum: make([]byte, 0, maxMACBytes)}
	}
	return k
}

// compute leaves the MAC of the content in the sum of the state it returns, which the caller
// gives back with release.
func (k *macKey) compute(t template, m *message) *macState {
	s := k.pool.Get().(*macState)
	s.mac.Reset()
	s.scratch = t.hashInto(s.mac, s.scratch, m)
	s.sum = s.mac.Sum(s.sum[:0])
	return s
}

func (k *macKey) release(s *macState) {
	if cap(s.scratch) > maxScratchBytes {
		s.scratch = nil
	}
	k.pool.Put(s)
}

func (a Algorithm) hash() func() hash.Hash {
	switch a {
	case HMACSHA1:
		return sha1.New
	case HMACSHA256:
		return sha256.New
	case HMACSHA512:
		return sha512.New
	case AlgorithmNone, Ed25519, ECDSAP256, Token:
	}
	panic(fmt.Sprintf("signature: algorithm %d has no hash", a))
}

// size is the length of a signature in bytes, 0 where it varies.
func (a Algorithm) size() int {
	switch a {
	case HMACSHA1:
		return sha1.Size
	case HMACSHA256:
		return sha256.Size
	case HMACSHA512:
		return sha512.Size
	case Ed25519:
		return ed25519.SignatureSize
	case AlgorithmNone, ECDSAP256, Token:
	}
	return 0
}
