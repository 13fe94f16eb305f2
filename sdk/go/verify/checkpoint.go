package verify

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

const (
	keyIDBytes = 4
	// 9999-12-31T23:59:59Z, the last second that RFC 3339 can write.
	maxSeconds = 253402300799
)

// head is what a checkpoint's text says.
type head struct {
	origin string
	size   int64
	root   [hashBytes]byte
}

// line is one signature line of a note.
type line struct {
	lineID
	// verifier is the key that the line was verified with, and its type. Zero when no key was given for the line; a line
	// that is wrong makes the note refused.
	verifier lineVerifier
	// at is set in verified cosignatures.
	at time.Time
}

func (l line) verified() bool { return l.verifier.public != nil }

// find returns the verified line of just this key and type, nil if there is none.
func find(lines []line, k key, kind byte) *line {
	for i, l := range lines {
		if v := l.verifier; l.verified() && v.kind == kind && v.name == k.name && bytes.Equal(v.public, k.public) {
			return &lines[i]
		}
	}
	return nil
}

// openCheckpoint reads a signed note and checks each line for which the ring has a key.
func openCheckpoint(signed string, keys ring) (head, []line, error) {
	if len(signed) > maxNoteBytes {
		return head{}, nil, fmt.Errorf("has more than %d bytes", maxNoteBytes)
	}
	opened, err := note.Open([]byte(signed), keys)
	var unverified *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &unverified):
		opened = unverified.Note
	case errors.As(err, &invalid):
		return head{}, nil, fmt.Errorf("the signature of %s+%08x is wrong", invalid.Name, invalid.Hash)
	case err != nil:
		return head{}, nil, errors.New("is not a signed note")
	}
	lines, err := readLines(opened, keys)
	if err != nil {
		return head{}, nil, err
	}
	// A note's reader skips a line that repeats an earlier one: it would be bytes that nobody checks.
	_, after, _ := strings.Cut(signed[len(opened.Text):], "\n")
	if strings.Count(after, "\n") != len(lines) {
		return head{}, nil, errors.New("has two signature lines of one key")
	}
	h, err := parseHead(opened.Text)
	return h, lines, err
}

func readLines(opened *note.Note, keys ring) ([]line, error) {
	var lines []line
	for i, s := range append(opened.Sigs[:len(opened.Sigs):len(opened.Sigs)], opened.UnverifiedSigs...) {
		l := line{lineID: lineID{s.Name, s.Hash}}
		if i < len(opened.Sigs) {
			l.verifier = keys[l.lineID]
		}
		raw, err := decodeBase64(s.Base64)
		if err != nil || len(raw) < keyIDBytes {
			return nil, fmt.Errorf("the signature of %s+%08x is not in canonical base64", s.Name, s.Hash)
		}
		if l.verified() && l.verifier.kind == typeCosignature {
			seconds := binary.BigEndian.Uint64(raw[keyIDBytes:]) // its length was checked with the signature
			if seconds > maxSeconds {
				return nil, fmt.Errorf("the cosignature of %s+%08x has no possible time", s.Name, s.Hash)
			}
			l.at = time.Unix(int64(seconds), 0).UTC()
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// parseHead reads the text of a checkpoint, C2SP tlog-checkpoint. Lines after the third are extensions, which are
// signed, and say nothing here.
func parseHead(text string) (head, error) {
	parts := strings.SplitN(text, "\n", 4)
	if len(parts) < 4 {
		return head{}, errors.New("has fewer than three lines")
	}
	h := head{origin: parts[0]}
	var err error
	if h.size, err = strconv.ParseInt(parts[1], 10, 64); err != nil || h.size < 0 || h.size > maxInteger || strconv.FormatInt(h.size, 10) != parts[1] {
		return head{}, fmt.Errorf("its tree size %.30q is not a decimal number up to %d", parts[1], int64(maxInteger))
	}
	root, err := decodeBase64(parts[2])
	if err != nil || len(root) != hashBytes {
		return head{}, fmt.Errorf("its root is not the base64 of %d bytes", hashBytes)
	}
	h.root = [hashBytes]byte(root)
	return h, nil
}
