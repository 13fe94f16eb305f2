package verify

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

// Types of signatures, C2SP signed-note.
const (
	typeEd25519     = 0x01
	typeCosignature = 0x04 // C2SP tlog-cosignature over Ed25519
)

const timestampBytes = 8

// key is a verifier key.
type key struct {
	name   string
	kind   byte
	public []byte
}

// parseKey reads the text of a verifier key, in its only spelling. The key id in it is checked, so that no character of
// the text can change unnoticed.
func parseKey(text string) (key, error) {
	if len(text) > maxKeyBytes {
		return key{}, fmt.Errorf("has %d bytes: at most %d", len(text), maxKeyBytes)
	}
	name, rest, _ := strings.Cut(text, "+")
	_, encoded, ok := strings.Cut(rest, "+")
	if !ok || name == "" {
		return key{}, errors.New("is not of the form <name>+<key id>+<base64>")
	}
	raw, err := decodeBase64(encoded)
	if err != nil || len(raw) < 2 {
		return key{}, errors.New("does not end in the base64 of a key")
	}
	k := key{name: name, kind: raw[0], public: raw[1:]}
	if k.text() != text {
		return key{}, errors.New("does not have the key id of its name and key")
	}
	if k.canVerify() && len(k.public) != ed25519.PublicKeySize {
		return key{}, fmt.Errorf("has %d bytes of Ed25519 key: want %d", len(k.public), ed25519.PublicKeySize)
	}
	return k, nil
}

// decodeBase64 takes canonical base64 only: a plain decoder ignores bits at the end, and every one line ends in between, which
// others could change.
func decodeBase64(text string) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") {
		return nil, errors.New("there is a line end in base64")
	}
	return base64.StdEncoding.Strict().DecodeString(text)
}

// CheckKeys says which of the texts is no verifier key (C2SP signed-note), and why. Nil: all of them may be trusted keys.
func CheckKeys(texts []string) error {
	_, err := parseKeys(texts)
	return err
}

func parseKeys(texts []string) ([]key, error) {
	keys := make([]key, len(texts))
	for i, text := range texts {
		k, err := parseKey(text)
		if err != nil {
			return nil, fmt.Errorf("key %d, %.100q: %w", i+1, text, err)
		}
		keys[i] = k
	}
	return keys, nil
}

func (k key) text() string {
	raw := append([]byte{k.kind}, k.public...)
	return fmt.Sprintf("%s+%08x+%s", k.name, k.id(k.kind), base64.StdEncoding.EncodeToString(raw))
}

// canVerify reports whether this package knows the key's type.
func (k key) canVerify() bool { return k.kind == typeEd25519 || k.kind == typeCosignature }

// id is the id of the key in lines of one type, C2SP signed-note.
func (k key) id(kind byte) uint32 {
	digest := sha256.New()
	digest.Write([]byte(k.name))
	digest.Write([]byte{'\n', kind})
	digest.Write(k.public)
	return binary.BigEndian.Uint32(digest.Sum(nil))
}

// lineID is what a signature line says about its key.
type lineID struct {
	name string
	id   uint32
}

// lineVerifier checks the lines of one key and type. It implements note.Verifier.
type lineVerifier struct {
	key
	kind byte
}

func (l lineVerifier) Name() string    { return l.name }
func (l lineVerifier) KeyHash() uint32 { return l.key.id(l.kind) }

func (l lineVerifier) Verify(text, signature []byte) bool {
	if l.kind == typeEd25519 {
		return ed25519.Verify(l.public, text, signature)
	}
	if len(signature) != timestampBytes+ed25519.SignatureSize {
		return false
	}
	seconds := binary.BigEndian.Uint64(signature)
	message := fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", seconds, text)
	return ed25519.Verify(l.public, message, signature[timestampBytes:])
}

// ring finds the verifier of a line. It implements note.Verifiers.
type ring map[lineID]lineVerifier

// newRing makes a ring of all lines that the keys may have signed. The log's key, whose text is of type 0x01, also
// signs timestamped cosignatures; a witness's key of type 0x04 signs only those.
//
// Key ids are short enough to be hit by trying. So of two keys with one name and id the first stays, trusted keys are
// given first, and whoever asks for a line compares the whole key.
func newRing(keys ...key) ring {
	r := make(ring, 2*len(keys))
	for _, k := range keys {
		for _, kind := range []byte{typeEd25519, typeCosignature} {
			id := lineID{k.name, k.id(kind)}
			if _, taken := r[id]; !taken && (k.kind == kind || k.kind == typeEd25519) {
				r[id] = lineVerifier{k, kind}
			}
		}
	}
	return r
}

func (r ring) Verifier(name string, id uint32) (note.Verifier, error) {
	if l, ok := r[lineID{name, id}]; ok {
		return l, nil
	}
	return nil, &note.UnknownVerifierError{Name: name, KeyHash: id}
}
