package checkpoint

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Types of signature lines, C2SP signed-note.
const (
	typeEd25519     = 0x01
	typeCosignature = 0x04 // C2SP tlog-cosignature over Ed25519
)

const (
	keyIDBytes     = 4
	timestampBytes = 8
)

// VerifierKey returns the text by which verifiers know a log's key: "<origin>+<key id>+<base64(0x01 || key)>".
func VerifierKey(origin string, key ed25519.PublicKey) (string, error) {
	text, err := note.NewEd25519VerifierKey(origin, key)
	if err != nil {
		return "", fmt.Errorf("write verifier key: %w", err)
	}
	return text, nil
}

// Sign returns the signed note of c at a time, with both lines of each of the log's keys, and has verified it. The signers
// must hold Ed25519 keys. There is one, or two while keys change.
func Sign(c Checkpoint, at time.Time, signers ...crypto.Signer) (string, error) {
	var lines []note.Signer
	var keys []ed25519.PublicKey
	for _, signer := range signers {
		public, ok := signer.Public().(ed25519.PublicKey)
		if !ok {
			return "", fmt.Errorf("the log's key is a %T: want Ed25519", signer.Public())
		}
		keys = append(keys, public)
		lines = append(lines, lineSigner{line{c.Origin, typeEd25519, public}, signer, at}, lineSigner{line{c.Origin, typeCosignature, public}, signer, at})
	}
	signed, err := note.Sign(&note.Note{Text: c.Text()}, lines...)
	if err != nil {
		return "", fmt.Errorf("sign checkpoint: %w", err)
	}
	for _, public := range keys { // a module that signs wrongly must be found out before the note is published
		if _, _, err := Open(string(signed), c.Origin, public); err != nil {
			return "", fmt.Errorf("check own signature: %w", err)
		}
	}
	return string(signed), nil
}

// Open reads a signed note of a log and returns its checkpoint and time. Both lines of one of the keys are demanded; other
// lines are ignored.
func Open(signed, origin string, keys ...ed25519.PublicKey) (Checkpoint, time.Time, error) {
	if len(signed) > maxNoteBytes {
		return Checkpoint{}, time.Time{}, fmt.Errorf("the checkpoint has %d bytes: at most %d", len(signed), maxNoteBytes)
	}
	verifiers := make([]note.Verifier, 0, 2*len(keys))
	for _, key := range keys {
		if len(key) != ed25519.PublicKeySize {
			return Checkpoint{}, time.Time{}, fmt.Errorf("a key of the log has %d bytes: want %d", len(key), ed25519.PublicKeySize)
		}
		verifiers = append(verifiers, line{origin, typeEd25519, key}, line{origin, typeCosignature, key})
	}
	opened, err := note.Open([]byte(signed), note.VerifierList(verifiers...))
	if err != nil {
		return Checkpoint{}, time.Time{}, fmt.Errorf("open checkpoint: %w", err)
	}
	c, err := Parse(opened.Text)
	if err != nil {
		return Checkpoint{}, time.Time{}, err
	}
	if c.Origin != origin {
		return Checkpoint{}, time.Time{}, fmt.Errorf("the checkpoint is of log %q: want %q", c.Origin, origin)
	}
	for _, key := range keys {
		plain := find(opened.Sigs, line{origin, typeEd25519, key})
		timed := find(opened.Sigs, line{origin, typeCosignature, key})
		if plain != nil && timed != nil {
			return c, time.Unix(int64(binary.BigEndian.Uint64(timed)), 0).UTC(), nil
		}
	}
	return Checkpoint{}, time.Time{}, fmt.Errorf("the checkpoint lacks the log's signature or its cosignature")
}

// line is one signature line's key. It implements note.Verifier.
type line struct {
	name string
	kind byte
	key  ed25519.PublicKey
}

func (l line) Name() string { return l.name }

// KeyHash is the key id of C2SP signed-note.
func (l line) KeyHash() uint32 {
	digest := sha256.New()
	digest.Write([]byte(l.name))
	digest.Write([]byte{'\n', l.kind})
	digest.Write(l.key)
	return binary.BigEndian.Uint32(digest.Sum(nil))
}

func (l line) Verify(message, signature []byte) bool {
	if l.kind == typeEd25519 {
		return ed25519.Verify(l.key, message, signature)
	}
	if len(signature) != timestampBytes+ed25519.SignatureSize {
		return false
	}
	seconds := binary.BigEndian.Uint64(signature)
	return ed25519.Verify(l.key, cosignedMessage(seconds, message), signature[timestampBytes:])
}

// lineSigner makes one signature line. It implements note.Signer.
type lineSigner struct {
	line
	signer crypto.Signer
	at     time.Time
}

func (s lineSigner) Sign(message []byte) ([]byte, error) {
	if s.kind == typeEd25519 {
		return s.signer.Sign(rand.Reader, message, crypto.Hash(0))
	}
	seconds := uint64(s.at.Unix())
	signature, err := s.signer.Sign(rand.Reader, cosignedMessage(seconds, message), crypto.Hash(0))
	if err != nil {
		return nil, err
	}
	return append(binary.BigEndian.AppendUint64(nil, seconds), signature...), nil
}

// cosignedMessage is what a cosignature/v1 signs, C2SP tlog-cosignature.
func cosignedMessage(seconds uint64, text []byte) []byte {
	return fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", seconds, text)
}

// find returns the signature bytes, without the key id, of a verified line. Nil when it is not there.
func find(signatures []note.Signature, l line) []byte {
	for _, s := range signatures {
		if s.Name != l.name || s.Hash != l.KeyHash() {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(s.Base64)
		if err == nil && len(raw) > keyIDBytes {
			return raw[keyIDBytes:]
		}
	}
	return nil
}
