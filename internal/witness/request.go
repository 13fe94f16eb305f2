package witness

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/kapsel-dev/kapsel/internal/tlog/merkle"
)

// request is the body of add-checkpoint.
type request struct {
	old   int64         // the size that the log believes the witness to know
	proof []merkle.Hash // from there to the checkpoint
	note  string        // the checkpoint, signed
}

func (r request) encode() string {
	var b strings.Builder
	fmt.Fprintf(&b, "old %d\n", r.old)
	for _, hash := range r.proof {
		b.WriteString(base64.StdEncoding.EncodeToString(hash[:]))
		b.WriteByte('\n')
	}
	b.WriteByte('\n')
	b.WriteString(r.note)
	return b.String()
}

func parseRequest(body string) (request, error) {
	head, note, found := strings.Cut(body, "\n\n")
	if !found {
		return request{}, errors.New("want a line \"old <size>\", proof lines, an empty line, and a checkpoint")
	}
	r := request{note: note}
	lines := strings.Split(head, "\n")
	size, found := strings.CutPrefix(lines[0], "old ")
	var err error
	if r.old, err = parseSize(size); !found || err != nil {
		return request{}, errors.New("the first line is not \"old <size>\"")
	}
	if len(lines)-1 > maxProofLines {
		return request{}, fmt.Errorf("the proof has more than %d lines", maxProofLines)
	}
	for i, text := range lines[1:] {
		hash, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil || len(hash) != merkle.HashSize {
			return request{}, fmt.Errorf("line %d of the proof is not the base64 of %d bytes", i+1, merkle.HashSize)
		}
		r.proof = append(r.proof, merkle.Hash(hash))
	}
	return r, nil
}

// parseSize reads a tree size in its only spelling.
func parseSize(text string) (int64, error) {
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != text {
		return 0, errors.New("not a tree size")
	}
	return size, nil
}
