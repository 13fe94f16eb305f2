package signature

import (
	"bytes"
	"encoding/json"
)

// lookupJSON finds the string or number at a path of object members. It scans without decoding,
// never recurses, and reads no further than the value, so a hit says nothing about whether the
// rest of the body is well formed. Of repeated members the first counts.
func lookupJSON(body []byte, path []string) (string, bool) {
	s := jsonScanner{b: body}
	for _, name := range path {
		if !s.member(name) {
			return "", false
		}
	}
	start := s.i
	if !s.skipValue() {
		return "", false
	}
	raw := s.b[start:s.i]
	switch c := raw[0]; {
	case c == '"':
		return unquote(raw)
	case (c == '-' || c >= '0' && c <= '9') && json.Valid(raw):
		return string(raw), true
	}
	return "", false
}

// jsonScanner walks b from i. Its methods report false at the first thing that is not JSON.
type jsonScanner struct {
	b []byte
	i int
}

// member goes from the start of an object to the start of the named member's value.
func (s *jsonScanner) member(name string) bool {
	if !s.take('{') {
		return false
	}
	for {
		s.skipSpace()
		start := s.i
		if !s.skipString() {
			return false
		}
		key := s.b[start:s.i]
		if !s.take(':') {
			return false
		}
		s.skipSpace()
		if keyIs(key, name) {
			return true
		}
		if !s.skipValue() || !s.take(',') {
			return false
		}
	}
}

// take skips white space, then exactly c.
func (s *jsonScanner) take(c byte) bool {
	s.skipSpace()
	if s.i >= len(s.b) || s.b[s.i] != c {
		return false
	}
	s.i++
	return true
}

func (s *jsonScanner) skipSpace() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *jsonScanner) skipString() bool {
	if s.i >= len(s.b) || s.b[s.i] != '"' {
		return false
	}
	for s.i++; ; {
		n := bytes.IndexByte(s.b[s.i:], '"')
		if n < 0 {
			return false
		}
		text := s.b[s.i : s.i+n]
		s.i += n + 1
		backslashes := len(text) - len(bytes.TrimRight(text, `\`))
		if backslashes%2 == 0 {
			return true
		}
	}
}

// skipValue skips a value; the brackets of a nested one are counted, not matched by kind.
func (s *jsonScanner) skipValue() bool {
	for depth := 0; s.i < len(s.b); {
		switch s.b[s.i] {
		case '"':
			if !s.skipString() {
				return false
			}
		case '{', '[':
			depth++
			s.i++
			continue
		case '}', ']':
			if depth--; depth < 0 {
				return false
			}
			s.i++
		case ' ', '\t', '\n', '\r', ',', ':':
			if depth == 0 {
				return false
			}
			s.i++
			continue
		default:
			s.skipScalar()
		}
		if depth == 0 {
			return true
		}
	}
	return false
}

// skipScalar skips a number, true, false or null, at least one byte.
func (s *jsonScanner) skipScalar() {
	for s.i++; s.i < len(s.b); s.i++ {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r', ',', ':', '"', '{', '}', '[', ']':
			return
		}
	}
}

func keyIs(quoted []byte, name string) bool {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1:len(quoted)-1]) == name
	}
	key, ok := unquote(quoted)
	return ok && key == name
}

// unquote returns a JSON string's text. Texts far beyond maxFieldBytes are not worth decoding.
func unquote(quoted []byte) (string, bool) {
	if len(quoted) > 6*maxFieldBytes+2 { // every character may be a \u escape
		return "", false
	}
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1]), true
	}
	var text string
	err := json.Unmarshal(quoted, &text)
	return text, err == nil
}
