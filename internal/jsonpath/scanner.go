package jsonpath

import "bytes"

// scanner walks b from i. Its methods report false at the first thing that is not JSON.
type scanner struct {
	b []byte
	i int
	// only has enter note whether a member is repeated.
	only, repeated bool
}

// enter goes from the start of a value to the start of the member or element that a step names.
func (s *scanner) enter(step step) bool {
	if step.index >= 0 && s.at('[') {
		return s.element(step.index)
	}
	if !s.member(step.name) {
		return false
	}
	if s.only {
		s.repeated = s.repeated || s.again(step.name)
	}
	return !s.repeated
}

// again reports whether a later member has that name too, from the start of a member's value on.
func (s scanner) again(name string) bool {
	return s.skipValue() && s.at(',') && s.find(name)
}

// at skips white space and reports whether c is next.
func (s *scanner) at(c byte) bool {
	s.skipSpace()
	return s.i < len(s.b) && s.b[s.i] == c
}

// member goes from the start of an object to the start of the named member's value.
func (s *scanner) member(name string) bool {
	return s.at('{') && s.find(name)
}

// find goes over the members that follow the brace or comma at i until the named one's value.
func (s *scanner) find(name string) bool {
	s.i++
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

// element goes from the start of an array to the start of its element n.
func (s *scanner) element(n int) bool {
	s.i++
	for ; ; n-- {
		s.skipSpace()
		if n == 0 {
			return s.i < len(s.b) && s.b[s.i] != ']'
		}
		if !s.skipValue() || !s.take(',') {
			return false
		}
	}
}

// take skips white space, then exactly c.
func (s *scanner) take(c byte) bool {
	if !s.at(c) {
		return false
	}
	s.i++
	return true
}

func (s *scanner) skipSpace() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) skipString() bool {
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
func (s *scanner) skipValue() bool {
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
func (s *scanner) skipScalar() {
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
