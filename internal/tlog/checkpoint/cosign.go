package checkpoint

import (
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

const signaturePrefix = "— "

// Cosign returns the signature line, with its newline, by which the key of a name cosigns a checkpoint's text at a time:
// a cosignature/v1, which has been verified.
func Cosign(text, name string, signer crypto.Signer, at time.Time) (string, error) {
	public, ok := signer.Public().(ed25519.PublicKey)
	if !ok {
		return "", fmt.Errorf("the cosigner's key is a %T: want Ed25519", signer.Public())
	}
	key := line{name, typeCosignature, public}
	signed, err := note.Sign(&note.Note{Text: text}, lineSigner{key, signer, at})
	if err == nil {
		_, err = note.Open(signed, note.VerifierList(key))
	}
	if err != nil {
		return "", fmt.Errorf("cosign checkpoint: %w", err)
	}
	return string(signed[len(text)+1:]), nil
}

// CosignerKey returns the text by which logs and verifiers know a cosigner's key: "<name>+<key id>+<base64(0x04 || key)>".
func CosignerKey(name string, key ed25519.PublicKey) string {
	l := line{name, typeCosignature, key}
	return fmt.Sprintf("%s+%08x+%s", name, l.KeyHash(), base64.StdEncoding.EncodeToString(append([]byte{l.kind}, key...)))
}

// Signature is one signature line of a note, verified or not.
type Signature struct {
	note.Signature
	Line string // as it is written, without its newline
}

// ParseSignatures reads signature lines. A kind of signature that is not known is as good as any other here. Base64 must be in
// its only spelling: a decoder skips line breaks and ignores bits, and a reader of notes refuses the whole note for less.
func ParseSignatures(lines string) ([]Signature, error) {
	var list []Signature
	for text := range strings.Lines(lines) {
		text, ended := strings.CutSuffix(text, "\n")
		rest, prefixed := strings.CutPrefix(text, signaturePrefix)
		name, encoded, found := strings.Cut(rest, " ")
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if !ended || !prefixed || !found || !isName(name) || err != nil || len(raw) <= keyIDBytes ||
			base64.StdEncoding.EncodeToString(raw) != encoded {
			return nil, errors.New("there is a line that is no signature")
		}
		list = append(list, Signature{note.Signature{Name: name, Hash: binary.BigEndian.Uint32(raw), Base64: encoded}, text})
	}
	return list, nil
}

// maxCosignedAt is 9999-12-31T23:59:59Z, the last second that RFC 3339, and so a proof package and the API, can write.
const maxCosignedAt = 253402300799

// CosignedAt is the time in a cosignature over Ed25519 (C2SP tlog-cosignature), in seconds since 1970, of the bytes of its line. It
// reports false for what is of another kind by its length, and for a time that cannot be written.
func CosignedAt(signature []byte) (seconds int64, possible bool) {
	if len(signature) != keyIDBytes+timestampBytes+ed25519.SignatureSize {
		return 0, false
	}
	at := binary.BigEndian.Uint64(signature[keyIDBytes:])
	return int64(at), at <= maxCosignedAt
}
