package tenant

import (
	"crypto/rand"
	"crypto/sha256"
	"hash/crc32"
	"math/big"
	"strings"
)

// The form of an API key: kps_, 32 random bytes in base 62, and the CRC-32 (IEEE) of all that in base 62. The prefix lets
// scanners find a key that leaked; the checksum tells them, and us, a typo from a key without asking the database.
const (
	keyPrefix      = "kps_"
	keyBytes       = 32
	keyDigits      = 43 // 62^43 > 2^256
	checksumDigits = 6  // 62^6 > 2^32
	keyLength      = len(keyPrefix) + keyDigits + checksumDigits

	// hintLength shows 8 digits, 47 of 256 bits: enough for people to tell keys apart, far too few to guess the rest.
	hintLength = len(keyPrefix) + 8
)

// Key is a new API key. Its text exists only here: show it once, and store Hash.
type Key struct {
	text string
}

// NewKey makes a random key.
func NewKey() Key {
	var raw [keyBytes]byte
	rand.Read(raw[:]) // does not fail: it ends the process if the system has no randomness
	body := keyPrefix + base62(new(big.Int).SetBytes(raw[:]), keyDigits)
	return Key{text: body + checksum(body)}
}

// Text is the key itself, for the Authorization header.
func (k Key) Text() string { return k.text }

// Hint is the key's beginning, by which people recognise it.
func (k Key) Hint() string { return k.text[:hintLength] }

// Hash is what is stored of the key.
func (k Key) Hash() []byte {
	hash := hashKey(k.text)
	return hash[:]
}

// String keeps the key out of logs.
func (k Key) String() string { return k.Hint() + "…" }

// GoString does the same for %#v.
func (k Key) GoString() string { return k.String() }

// hashKey needs no slow hash: a key has 256 random bits.
func hashKey(text string) [sha256.Size]byte { return sha256.Sum256([]byte(text)) }

// wellFormed reports whether text can be a key at all.
func wellFormed(text string) bool {
	if len(text) != keyLength || !strings.HasPrefix(text, keyPrefix) {
		return false
	}
	body := text[:len(keyPrefix)+keyDigits]
	return text[len(body):] == checksum(body)
}

func checksum(body string) string {
	return base62(big.NewInt(int64(crc32.ChecksumIEEE([]byte(body)))), checksumDigits)
}

// base62 spells n with digits 0-9, a-z, A-Z, padded with zeros.
func base62(n *big.Int, digits int) string {
	text := n.Text(62)
	return strings.Repeat("0", digits-len(text)) + text
}
