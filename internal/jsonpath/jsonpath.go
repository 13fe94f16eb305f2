// Package jsonpath reads one value out of a JSON document by a dotted path, such as "data.object.id" or
// "items.0.price": a name steps into an object, a number into an array or, where an object stands, to the member of
// that name.
//
// It serves what intake reads of a webhook: event types, deduplication keys, signatures that stand in the body. It scans
// without decoding, never recurses, and reads no further than it must, so a value that was found says nothing about
// whether the rest of the document is well formed.
package jsonpath

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
)

// MaxTextBytes bounds the text that Text and OnlyText return. A longer one is not found.
const MaxTextBytes = 16 << 10

// Path is a compiled path. The zero Path finds nothing.
type Path []step

type step struct {
	name  string
	index int // -1: only a name
}

// Parse splits a path at its dots.
func Parse(path string) Path {
	if path == "" {
		return nil
	}
	names := strings.Split(path, ".")
	p := make(Path, len(names))
	for i, name := range names {
		p[i] = step{name: name, index: -1}
		if n, err := strconv.ParseUint(name, 10, 31); err == nil {
			p[i].index = int(n)
		}
	}
	return p
}

// String is the path as it was parsed.
func (p Path) String() string {
	names := make([]string, len(p))
	for i, s := range p {
		names[i] = s.name
	}
	return strings.Join(names, ".")
}

// Text returns the string or number at the path, a number as it is spelled. Of repeated members the first counts.
func (p Path) Text(body []byte) (string, bool) {
	from, to, ok := p.Span(body)
	if !ok {
		return "", false
	}
	return text(body[from:to])
}

// Errors of OnlyText.
var (
	ErrRepeated = errors.New("a member is there more than once")
	ErrNoText   = errors.New("a member is neither text nor number, or too long")
)

// OnlyText is Text for values that a check depends on. Null is like nothing; another value that Text would pass over, and
// a member that is repeated anywhere on the path, is an error: of two members with one name, readers of JSON take either,
// so that a check on one of them says nothing about the other.
func (p Path) OnlyText(body []byte) (value string, ok bool, err error) {
	s := scanner{b: body, only: true}
	from, to, ok := p.find(&s)
	switch {
	case s.repeated:
		return "", false, ErrRepeated
	case !ok || string(body[from:to]) == "null":
		return "", false, nil
	}
	if value, ok = text(body[from:to]); !ok {
		return "", false, ErrNoText
	}
	return value, true, nil
}

// Span returns where the value at the path begins and ends in body.
func (p Path) Span(body []byte) (from, to int, ok bool) {
	s := scanner{b: body}
	return p.find(&s)
}

func (p Path) find(s *scanner) (from, to int, ok bool) {
	if len(p) == 0 {
		return 0, 0, false
	}
	for _, step := range p {
		if !s.enter(step) {
			return 0, 0, false
		}
	}
	from = s.i
	if !s.skipValue() {
		return 0, 0, false
	}
	return from, s.i, true
}

func text(raw []byte) (string, bool) {
	switch c := raw[0]; {
	case c == '"':
		return unquote(raw)
	case (c == '-' || c >= '0' && c <= '9') && len(raw) <= MaxTextBytes && json.Valid(raw):
		return string(raw), true
	}
	return "", false
}

// unquote returns a JSON string's text. Texts far beyond the bound are not worth decoding.
func unquote(quoted []byte) (string, bool) {
	if bytes.IndexByte(quoted, '\\') >= 0 {
		return unescape(quoted)
	}
	if len(quoted) > MaxTextBytes+2 {
		return "", false
	}
	return string(quoted[1 : len(quoted)-1]), true
}

func unescape(quoted []byte) (string, bool) {
	if len(quoted) > 6*MaxTextBytes+2 { // every character may be a \u escape
		return "", false
	}
	var s string
	if json.Unmarshal(quoted, &s) != nil || len(s) > MaxTextBytes {
		return "", false
	}
	return s, true
}
