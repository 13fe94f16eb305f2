package merkle

import (
	"crypto/sha256"
	"encoding/hex"
)

// HashSize is the size of a hash in bytes.
const HashSize = sha256.Size

// Domain separation of RFC 6962 section 2.1: without it an inner node could be passed off as a leaf.
const (
	leafPrefix = 0x00
	nodePrefix = 0x01
)

// Hash is the hash of a leaf, a node or a whole tree.
type Hash [HashSize]byte

// EmptyRoot is the root of the tree without leaves, the hash of the empty string.
var EmptyRoot = Hash(sha256.Sum256(nil))

// String returns the hash in lower-case hex.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// LeafHash hashes the exact bytes of a leaf.
func LeafHash(leaf []byte) Hash {
	digest := sha256.New()
	digest.Write([]byte{leafPrefix})
	digest.Write(leaf)
	var h Hash
	digest.Sum(h[:0])
	return h
}

// NodeHash hashes two neighbours into their parent.
func NodeHash(left, right Hash) Hash { return nodeHash(left[:], right[:]) }

func nodeHash(left, right []byte) Hash {
	var message [1 + 2*HashSize]byte
	message[0] = nodePrefix
	copy(message[1:], left)
	copy(message[1+HashSize:], right)
	return sha256.Sum256(message[:])
}

// perfectRoot is the root over the hashes in row, one after the other, whose number is a power of two up to 256.
func perfectRoot(row []byte) Hash {
	if len(row) == HashSize {
		return Hash(row)
	}
	var scratch [TileBytes / 2]byte
	for len(row) > HashSize {
		n := len(row) / (2 * HashSize)
		for i := range n {
			pair := row[2*i*HashSize : 2*(i+1)*HashSize]
			parent := nodeHash(pair[:HashSize], pair[HashSize:])
			copy(scratch[i*HashSize:], parent[:])
		}
		row = scratch[:n*HashSize]
	}
	return Hash(row)
}
